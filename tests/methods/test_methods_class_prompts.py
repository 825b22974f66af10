"""Classes that the text tower reads alike are refused by every method that reads their names."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clinprompt.errors import BadParams
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.class_prompts import class_prompt_ids

KNOBS: dict[str, dict[str, Any]] = {
    "zero_shot": {},
    "coop": {"n_ctx": 4, "context_init": "a photo of a", "class_position": "end"},
    "maple": {"n_ctx": 2, "depth": 2},
}
LONG = " ".join(["tumour"] * 30)
UNKNOWN = 4


def build(name: str, backbone: Any, names: tuple[str, ...]) -> Any:
    return method(name)(Task(backbone, names, 0), check_config(name, KNOBS[name]))


@pytest.mark.parametrize("name", ["tip_adapter", "vpt"])
def test_methods_with_frozen_sentences_refuse_them_too(make_backbone: Callable[[str], Any], name: str) -> None:
    with pytest.raises(BadParams, match=r"the template 'a photo of a \{\}\.': the text tower of tiny reads the same"):
        method(name)(Task(make_backbone("clip"), ("cyst", "cyst"), 0), check_config(name, {}))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("zero_shot", "clip"), ("zero_shot", "bert"), ("coop", "clip"), ("coop", "bert"), ("maple", "clip")],
)
@pytest.mark.parametrize("names", [("glioma", "cyst", "glioma"), ("no cyst", f"{LONG} left", f"{LONG} right")])
def test_names_that_are_equal_as_far_as_the_tower_reads_are_refused(
    make_backbone: Callable[[str], Any], name: str, kind: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(BadParams, match=rf"methods\.{name}: the text tower of tiny reads the same") as caught:
        build(name, make_backbone(kind), names)
    assert caught.value.exit_code == 64
    assert f"for the classes {names[0] if names[0] == names[2] else names[1]!r} and {names[2]!r}" in str(caught.value)


@pytest.mark.parametrize("names", [("肺炎", "正常"), ("肺炎", "正常 正常"), ("肺炎 glioma", "glioma")])
def test_names_in_a_script_that_the_tokeniser_does_not_know_are_refused(
    make_backbone: Callable[[str], Any], names: tuple[str, ...]
) -> None:
    tiny = make_backbone("bert")
    backbone = replace(tiny, unknown_id=UNKNOWN)

    def tokenize(texts: list[str]) -> Any:
        words = {word for text in texts for word in re.findall(r"\w+", text) if not word.isascii()}
        backbone.words.update(dict.fromkeys(words, UNKNOWN))
        return tiny.tokenize(texts)

    backbone.tokenize = tokenize
    backbone.words = tiny.words
    with pytest.raises(BadParams, match="reads the same for the classes"):
        class_prompt_ids(backbone, [f"a photo of a {name}." for name in names], names, "here")
    distinct = ("肺炎 glioma", "正常 cyst")
    assert len(class_prompt_ids(backbone, [f"a photo of a {name}." for name in distinct], distinct, "here")) == 2
