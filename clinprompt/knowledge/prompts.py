"""The prompts of the language model: one question per class and aspect, and how a prompt becomes token ids."""

from clinprompt.data.card import Card, ClassInfo
from clinprompt.errors import BadParams
from clinprompt.knowledge.description import Prompt
from clinprompt.knowledge.llm import Llm

_FRAME = "You read {modality} images of the {organ}. The finding is: {name}. "

# For each aspect the question, and the words with which the answer must begin: they keep a small model on the subject.
ASPECTS: dict[str, tuple[str, str]] = {
    "shape": (
        _FRAME + "In one sentence, describe the shape and the borders seen on {phrase}.",
        "On {phrase}, the outline looks",
    ),
    "signal": (
        _FRAME + "In one sentence, describe how bright or dark the tissue is on {phrase}.",
        "On {phrase}, the tissue appears",
    ),
    "location": (
        _FRAME + "In one sentence, describe where to look on {phrase}.",
        "On {phrase}, the place to look at is",
    ),
    "surroundings": (
        _FRAME + "In one sentence, describe the surrounding tissue on {phrase}.",
        "On {phrase}, the surrounding tissue looks",
    ),
}
FEATURES = _FRAME + "What are the distinctive visual features of {phrase}?"


def aspect_prompt(llm: Llm, card: Card, info: ClassInfo, aspect: str) -> Prompt:
    """The prompt for one class and aspect.

    Raises:
        BadParams: an aspect without a question.
    """
    if aspect not in ASPECTS:
        raise BadParams(
            f"params.yaml: knowledge.aspects: no aspect {aspect!r}; there are {', '.join(sorted(ASPECTS))}."
        )
    return _prompt(llm, card, info, aspect, ASPECTS[aspect])


def features_prompt(llm: Llm, card: Card, info: ClassInfo) -> Prompt:
    """The prompt about a class's distinctive visual features, from whose answer hidden states are taken."""
    return _prompt(llm, card, info, "features", (FEATURES, ""))


def token_ids(llm: Llm, text: str) -> list[int]:
    """A prompt's token ids; a chat template has already written the special tokens."""
    return list(llm.tokenizer(text, add_special_tokens=not llm.chat).input_ids)


def _prompt(llm: Llm, card: Card, info: ClassInfo, aspect: str, template: tuple[str, str]) -> Prompt:
    fields = {"modality": card.modality, "organ": card.organ, "name": info.name, "phrase": info.phrase}
    question, opening = (text_template.format(**fields) for text_template in template)
    return prompt_of(llm, info.id, aspect, question, opening)


def prompt_of(llm: Llm, class_id: str, aspect: str, question: str, opening: str) -> Prompt:
    """The prompt that asks a question, as the model's chat template has it, and begins the answer."""
    if llm.chat:
        messages = [{"role": "user", "content": question}]
        text = llm.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + opening
    else:
        text = f"Question: {question}\nAnswer: {opening}".rstrip()
    return Prompt(class_id, aspect, question, opening, text)
