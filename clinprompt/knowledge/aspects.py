"""What a language model is asked of a class: `aspects.yaml`, and what params.yaml sets in its place."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from clinprompt.errors import BadParams
from clinprompt.knowledge_params import Aspect, AspectName, Frame, KnowledgeParams, TemplatesParams
from clinprompt.schema import Section, check, read_yaml

_FILE = Path(__file__).with_name("aspects.yaml")


class Aspects(Section):
    """All templates: `frame` stands before each question, `features` is what hidden states are taken from."""

    frame: Frame
    features: Aspect
    aspects: Mapping[AspectName, Aspect]

    def with_own(self, templates: TemplatesParams) -> "Aspects":
        """These, with what params.yaml adds or replaces."""
        return Aspects(
            frame=self.frame if templates.frame is None else templates.frame,
            features=templates.features or self.features,
            aspects={**self.aspects, **templates.aspects},
        )


@cache
def read_aspects() -> Aspects:
    """The file.

    Raises:
        BadParams: it is not as it should be; the key is named.
    """
    return check(Aspects, read_yaml(_FILE), str(_FILE))


def aspects_of(params: KnowledgeParams) -> Aspects:
    """The templates of some params.

    Raises:
        BadParams: one of `aspects` has no template, or what is asked of a class does not name it.
    """
    known = read_aspects().with_own(params.templates)
    for name in params.samples_of:
        if name not in known.aspects:
            raise BadParams(
                f"params.yaml: knowledge.aspects: no aspect {name!r}; there are {', '.join(sorted(known.aspects))}. "
                "knowledge.templates.aspects adds others."
            )
    asked = {"features": known.features, **{f"aspects.{name}": known.aspects[name] for name in params.samples_of}}
    for key, aspect in asked.items():
        words = known.frame + aspect.ask
        if "{name}" not in words and "{phrase}" not in words:
            raise BadParams(
                f"params.yaml: knowledge.templates.{key}: neither ask nor the frame holds {{name}} or {{phrase}}, so "
                "that the same is asked of each class."
            )
    return known
