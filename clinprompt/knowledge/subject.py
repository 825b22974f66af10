"""What of a dataset may enter a prompt: the modality, the organ and its classes' names. No patient's fact is among it.

Whoever writes a card writes into the prompt, so what reads like an order or a chat's token is refused.
"""

import re
from dataclasses import dataclass

from clinprompt.data.card import Card, ClassInfo
from clinprompt.errors import BadParams
from clinprompt.knowledge.form import speaks_to_a_model
from clinprompt.knowledge.words import unseen

_MOST = 200  # characters
# Tokens of chat templates, tags, fences, places of templates.
_TOKENS = re.compile(r"<[/|!A-Za-z]|\|>|\[/?[A-Z_]+\]|```|[{}]")


@dataclass(frozen=True)
class Subject:
    """A class as prompts know it; each field has passed `plain`."""

    class_id: str
    modality: str
    organ: str
    name: str
    phrase: str

    @classmethod
    def of(cls, card: Card, info: ClassInfo) -> "Subject":
        """That of a class of a card.

        Raises:
            BadParams: a name can't stand in a prompt; its key in the card is named.
        """
        key = f"classes: {info.id}"
        return cls(
            info.id,
            plain(card.modality, card.name, "modality"),
            plain(card.organ, card.name, "organ"),
            plain(info.name, card.name, f"{key}: name"),
            plain(info.phrase, card.name, f"{key}: phrase"),
        )


def plain(text: str, card: str, key: str) -> str:
    """A name, as it may stand in a prompt: one line, no longer than a name is, that tells a model nothing to do.

    Args:
        card, key: where it stands, for the message.

    Raises:
        BadParams: it can't.
    """
    problem = None
    if len(text) > _MOST:
        problem = f"has {len(text)} characters, more than the {_MOST} of a name"
    elif unseen(text) or re.search(r"[\t\r\n]", text):
        problem = "holds a line break or a character that can't be seen"
    elif _TOKENS.search(text):
        problem = "holds braces, a tag or a token of chat templates"
    elif speaks_to_a_model(text):
        problem = "reads like an order to a language model"
    if problem:
        raise BadParams(
            f"datasets/{card}.yaml: {key}: {text[:60]!r} {problem}, so no prompt may hold it; write the clinical name."
        )
    return text
