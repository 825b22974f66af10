"""The prompts of the language model: questions per class and aspect, and how a prompt becomes token ids."""

from collections.abc import Iterable
from typing import Protocol

from clinprompt.errors import BadParams
from clinprompt.knowledge.aspects import Aspects, read_aspects
from clinprompt.knowledge.description import Prompt
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.subject import Subject
from clinprompt.knowledge_params import Aspect

_MOST_SIBLINGS = 30  # an aspect that is asked of each pair of classes is too much where there are more


class Asked(Protocol):
    """Who is asked."""

    def prompt_text(self, question: str, opening: str) -> tuple[str, str]:
        """The text that is sent, and the part of the opening that it holds but the answer doesn't."""


def aspect_prompts(
    asked: Asked,
    subject: Subject,
    siblings: Iterable[Subject],
    names: Iterable[str],
    known: Aspects | None = None,
) -> list[Prompt]:
    """The prompts for one class: one for each named aspect, or for each sibling where the aspect asks so.

    A prompt about a sibling has the aspect's name and the sibling's id, as "differential:meningioma".

    Args:
        known: the templates; by default those of aspects.yaml.

    Raises:
        BadParams: an aspect asks of each of too many siblings.
    """
    known, others = known or read_aspects(), list(siblings)
    prompts = []
    for name in names:
        aspect = known.aspects[name]
        if not aspect.of_each_sibling:
            prompts.append(_prompt(asked, subject, name, known.frame, aspect))
        elif len(others) > _MOST_SIBLINGS:
            raise BadParams(
                f"params.yaml: knowledge.aspects: {name} asks of each pair of classes, of which {len(others) + 1} "
                f"classes make too many; leave it out (up to {_MOST_SIBLINGS + 1} classes are asked)."
            )
        else:
            prompts += [_prompt(asked, subject, f"{name}:{o.class_id}", known.frame, aspect, o.phrase) for o in others]
    return prompts


def features_prompt(asked: Asked, subject: Subject, known: Aspects | None = None) -> Prompt:
    """The prompt about a class's distinctive visual features, from whose answer hidden states are taken."""
    known = known or read_aspects()
    return _prompt(asked, subject, "features", known.frame, known.features)


def token_ids(llm: Llm, text: str) -> list[int]:
    """A prompt's token ids; a chat template has already written the special tokens."""
    return list(llm.tokenizer(text, add_special_tokens=not llm.chat).input_ids)


def prompt_of(asked: Asked, class_id: str, aspect: str, question: str, opening: str) -> Prompt:
    """The prompt that asks a question and begins the answer."""
    text, begun = asked.prompt_text(question, opening)
    return Prompt(class_id, aspect, question, begun, text)


def _prompt(asked: Asked, subject: Subject, name: str, frame: str, aspect: Aspect, sibling: str = "") -> Prompt:
    fields = {"modality": subject.modality, "organ": subject.organ, "name": subject.name, "phrase": subject.phrase}
    question, opening = (template.format(**fields, sibling=sibling) for template in (frame + aspect.ask, aspect.begin))
    return prompt_of(asked, subject.class_id, name, question, opening)
