"""The papers' own settings by protocol, from YAML files: what `protocols.<protocol>.preset` trains with."""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, model_validator

from clinprompt.errors import BadParams
from clinprompt.params import Augmentation
from clinprompt.schema import Section, check, read_yaml

FILES = [Path(__file__).with_name(name) for name in ("presets_biomed.yaml", "presets_originals.yaml")]


class Published(Section):
    """Knobs that were read in one file, named by its repository and path."""

    source: str
    knobs: dict[str, Any]


class InCards(Section):
    """A knob that differs by dataset and stands in the datasets' cards.

    `not_found` are the datasets for which no source was at hand: there the method's default is taken.
    """

    source: str
    not_found: list[str] = []


class PresetMethod(Section):
    """What a paper's code sets of one method.

    Attributes:
        not_published: knobs that the sources leave open, and why.
        steps_per_shot: the training has this many steps for each image per class; None: it is counted in epochs.
        differs: what is done otherwise here, whatever the knobs.
    """

    published: list[Published] = Field(min_length=1)
    in_cards: dict[str, InCards] = {}
    not_published: dict[str, str] = {}
    steps_per_shot: PositiveInt | None = None
    differs: list[str] = []

    @model_validator(mode="after")
    def _each_knob_stands_once(self) -> "PresetMethod":
        named = [*(name for part in self.published for name in part.knobs), *self.in_cards, *self.not_published]
        if repeated := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)}: stands there twice")
        return self

    @property
    def knobs(self) -> dict[str, Any]:
        """All that is published of the method for every dataset."""
        return {name: value for part in self.published for name, value in part.knobs.items()}


class PresetProtocol(Section):
    """A protocol as a paper runs it: how images are augmented there, where a method reads pixels (None: not published),
    and the methods."""

    augmentation: Augmentation | None = None
    methods: dict[str, PresetMethod]


class Preset(Section):
    """A paper's settings, by protocol."""

    title: str
    paper: str
    full: PresetProtocol | None = None
    few_shot: PresetProtocol | None = None
    base_to_novel: PresetProtocol | None = None
    label_efficiency: PresetProtocol | None = None

    @property
    def protocols(self) -> dict[str, PresetProtocol]:
        """What there is, by the protocol's name."""
        by_name = {name: getattr(self, name) for name in ("full", "few_shot", "base_to_novel", "label_efficiency")}
        return {name: one for name, one in by_name.items() if one is not None}


class _PresetsFile(Section):
    presets: dict[str, Preset]


@cache
def presets() -> dict[str, Preset]:
    """All of them, in the files' order."""
    return {
        name: one
        for file in FILES
        for name, one in check(_PresetsFile, {"presets": read_yaml(file)}, str(file)).presets.items()
    }


def preset(name: str, where: str = "the command line") -> Preset:
    """One of them.

    Args:
        where: the key that names it, for the message.

    Raises:
        BadParams: there is none of this name.
    """
    if name not in presets():
        raise BadParams(f"{where}: there is no preset {name!r}; known: {', '.join(presets())}.")
    return presets()[name]


def preset_method(name: str | None, protocol: str, method: str) -> PresetMethod | None:
    """What a preset has of a method in a protocol; None without a preset, and where the paper does not train it.

    Raises:
        BadParams: there is no such preset, or its paper does not run this protocol.
    """
    if name is None:
        return None
    key = f"params.yaml: protocols.{protocol}.preset"
    found = preset(name, key).protocols
    if protocol not in found:
        raise BadParams(f"{key}: {name} has published settings of {', '.join(found)}, and none of {protocol}.")
    return found[protocol].methods.get(method)


def preset_augmentation(name: str | None, protocol: str, method: str) -> Augmentation | None:
    """How a preset augments the images that a method trains on; None where it says nothing of that.

    Raises:
        BadParams: as `preset_method`.
    """
    if name is None or preset_method(name, protocol, method) is None:
        return None
    return preset(name).protocols[protocol].augmentation


def preset_knobs(name: str | None, protocol: str, method: str) -> dict[str, Any]:
    """The knobs that a preset sets of a method in a protocol; empty where it sets none.

    Raises:
        BadParams: as `preset_method`.
    """
    found = preset_method(name, protocol, method)
    return {} if found is None else found.knobs


def describe(name: str) -> str:
    """A preset as Markdown: each method's knobs with the files that they come from, and what is open or otherwise.

    Raises:
        BadParams: there is none of this name.
    """
    one = preset(name)
    lines = [f"# {name}: {one.title} ({one.paper})", ""]
    for protocol, part in one.protocols.items():
        lines += [
            f"## {protocol}",
            "",
            f"Augmentation of what reads pixels: {part.augmentation or 'not published'}.",
            "",
        ]
        for method, settings in part.methods.items():
            lines += [f"### {method}", "", *_table(settings), ""]
    return "\n".join(lines)


def _table(settings: PresetMethod) -> list[str]:
    rows = [(knob, _shown(value), part.source) for part in settings.published for knob, value in part.knobs.items()]
    if settings.steps_per_shot is not None:
        rows.append(("steps per shot", str(settings.steps_per_shot), "as the batch size"))
    for knob, one in settings.in_cards.items():
        lacking = f"; no source at hand for {', '.join(one.not_found)}" if one.not_found else ""
        rows.append((knob, "by dataset, in its card", one.source + lacking))
    rows += [(knob, "not published", why) for knob, why in settings.not_published.items()]
    head = ["| knob | value | from |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    return [*head, *(["", *(f"- {text}" for text in settings.differs)] if settings.differs else [])]


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).replace("|", "\\|")
