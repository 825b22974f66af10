"""Descriptions: seeded, independent of what else is asked, judged, and asked for again when too few are accepted."""

from pathlib import Path

import pytest
from tiny_llm import make_llm

from clinprompt.data.card import Card
from clinprompt.errors import BadParams
from clinprompt.knowledge import checks
from clinprompt.knowledge.checks import DescriptionCheck
from clinprompt.knowledge.generate import ROUNDS, Description, describe
from clinprompt.knowledge.llm import Llm, load_llm
from clinprompt.knowledge.prompts import aspect_prompts, features_prompt
from clinprompt.knowledge.subject import Subject
from clinprompt.knowledge_params import KnowledgeParams


def texts(made: list[Description]) -> dict[tuple[str, str, int], str]:
    return {(d.prompt.class_id, d.prompt.aspect, d.index): d.raw for d in made}


def test_every_class_and_aspect_gets_its_samples(llm: Llm, card: Card, knowledge: KnowledgeParams) -> None:
    made = describe(llm, card, card.classes, knowledge)
    wanted = {(c, a, i) for c in ("glioma", "adenoma", "none") for a in ("shape", "location") for i in (0, 1)}
    assert set(texts(made)) == wanted
    assert len(made) == len(wanted)
    assert all(d.raw.startswith(d.prompt.opening) for d in made)


def test_the_same_seed_gives_the_same_texts_and_another_one_others(
    llm: Llm, card: Card, knowledge: KnowledgeParams
) -> None:
    first, again = (describe(llm, card, card.classes, knowledge) for _ in range(2))
    assert first == again
    other = describe(llm, card, card.classes, knowledge.model_copy(update={"seed": 1}))
    assert texts(other) != texts(first)


def test_texts_depend_neither_on_batch_size_nor_on_what_else_is_asked(
    llm: Llm, card: Card, knowledge: KnowledgeParams
) -> None:
    whole = texts(describe(llm, card, card.classes, knowledge))
    fewer = {"batch_size": 1, "aspects": ["location"], "descriptions_per_aspect": 1}
    part = texts(describe(llm, card, card.classes[1:2], knowledge.model_copy(update=fewer)))
    assert part == {key: whole[key] for key in [("adenoma", "location", 0)]}


def test_classes_below_the_minimum_get_more_rounds_with_new_samples(
    llm: Llm, card: Card, knowledge: KnowledgeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    glioma_only = DescriptionCheck("glioma_only", lambda s, c: float(s.class_id == "glioma"), 1, 1)
    monkeypatch.setattr(checks, "CHECKS", (glioma_only,))
    made = describe(llm, card, card.classes, knowledge.model_copy(update={"min_accepted_per_class": 4}))
    rounds = {c: {d.round for d in made if d.prompt.class_id == c} for c in ("glioma", "adenoma")}
    assert rounds == {"glioma": {0}, "adenoma": set(range(ROUNDS))}
    indices = [d.index for d in made if (d.prompt.class_id, d.prompt.aspect) == ("adenoma", "shape")]
    assert indices == list(range(2 * ROUNDS))
    assert {d.verdict.reason for d in made if d.prompt.class_id == "adenoma"} == {"glioma_only"}


def test_an_unknown_aspect_lists_the_known_ones(llm: Llm, card: Card, knowledge: KnowledgeParams) -> None:
    with pytest.raises(
        BadParams, match=r"knowledge\.aspects: no aspect 'taste'; there are appearance, .*location, shape"
    ):
        describe(llm, card, card.classes, knowledge.model_copy(update={"aspects": ["shape", "taste"]}))


@pytest.mark.parametrize("chat", [True, False])
def test_prompts_name_modality_organ_and_class(card: Card, tmp_path: Path, chat: bool) -> None:
    llm = load_llm("tiny", str(make_llm(tmp_path, chat)))
    info = card.classes[0]
    subject = Subject.of(card, info)
    for prompt in (*aspect_prompts(llm, subject, [], ["shape"]), features_prompt(llm, subject)):
        assert all(word in prompt.question for word in (card.modality, card.organ, info.name, info.phrase))
        assert prompt.question in prompt.text
        assert prompt.text.endswith(prompt.opening)
        assert prompt.text.startswith("<|im_start|>user\n" if chat else "Question: ")
