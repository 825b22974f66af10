"""Hidden states of the language model for each class, as CILMP uses them: by default all layers' of an answer's end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clinprompt.data.card import Card, ClassInfo
from clinprompt.errors import BadParams
from clinprompt.knowledge.asking import complete_batch
from clinprompt.knowledge.aspects import Aspects
from clinprompt.knowledge.completion import Sampling
from clinprompt.knowledge.description import Prompt
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.prompts import features_prompt, token_ids
from clinprompt.knowledge.samples import Samples
from clinprompt.knowledge.subject import Subject
from clinprompt.progress import progress

# What the rows of a class's states are: every layer's state of the answer's last token, its end token unless it was cut
# (as published), every layer's of the question's last token, or the last layer's states of all tokens of the answer.
Which = Literal["answer_end_all_layers", "question_end_all_layers", "answer_last_layer"]


@dataclass(frozen=True)
class ClassStates:
    """The hidden states of one class.

    Attributes:
        prompt: the question about the class.
        answer: the model's greedy answer, or the sentences that it read as one; "" where there was neither.
        ended: whether the end-of-sequence token stands behind the answer.
        states: float32 [L, D].
    """

    prompt: Prompt
    answer: str
    ended: bool
    states: np.ndarray


def hidden_states(
    llm: Llm,
    card: Card,
    classes: Sequence[ClassInfo],
    answer_tokens: int,
    which: Which = "answer_end_all_layers",
    kept: Samples | None = None,
    known: Aspects | None = None,
) -> list[ClassStates]:
    """The hidden states of each class, from a question about its distinctive visual features and the model's answer.

    The answer is greedy, of `answer_tokens` tokens at most; the end-of-sequence token stands behind it where the model
    itself ended it, and nothing where it was cut. A second forward pass over question and answer gives the states. Row
    l of all layers is decoder layer l + 1; the last layer's states have passed the model's final norm, as transformers
    reports them. One class at a time: padding would change the last digits. Answers that are `kept` are not made again.
    The question is of the templates `known`, by default those of aspects.yaml.
    """
    sampling = Sampling(temperature=0, top_p=1, max_new_tokens=answer_tokens)
    class_states = []
    for class_info in progress(classes, "Reading hidden states", unit="class"):
        prompt = features_prompt(llm, Subject.of(card, class_info), known)
        question = token_ids(llm, prompt.text)
        if which == "question_end_all_layers":
            class_states.append(ClassStates(prompt, "", True, _states(llm, question)[:, -1]))
            continue
        answer = complete_batch(llm, [prompt.text], [0], sampling, _never, kept or Samples())[0]
        end = [llm.tokenizer.eos_token_id] if answer.ended else []
        rows = _rows(llm, question, [*answer.tokens, *end], which)
        class_states.append(ClassStates(prompt, answer.text, answer.ended, rows))
    return class_states


def states_of_sentences(
    llm: Llm,
    card: Card,
    classes: Sequence[ClassInfo],
    sentences: Mapping[str, Sequence[str]],
    which: Which = "answer_end_all_layers",
    known: Aspects | None = None,
) -> list[ClassStates]:
    """The hidden states of each class, from the same question and given sentences, which the model reads as its answer.

    They stand in their order, with spaces between them and the end-of-sequence token behind. Nothing is generated.

    Args:
        sentences: at least one of each class, by class id.

    Raises:
        BadParams: question and sentences are more than the model reads.
    """
    class_states = []
    for class_info in progress(classes, "Reading hidden states", unit="class"):
        prompt, text = features_prompt(llm, Subject.of(card, class_info), known), " ".join(sentences[class_info.id])
        question = token_ids(llm, prompt.text)
        answer = [*llm.tokenizer(text, add_special_tokens=False).input_ids, llm.tokenizer.eos_token_id]
        length, most = len(question) + len(answer), getattr(llm.model.config, "max_position_embeddings", None)
        if most is not None and length > most:
            raise BadParams(
                f"params.yaml: knowledge.states_of: the accepted descriptions of the class {class_info.id} are "
                f"{length} tokens with the question, and {llm.name} reads {most}; lower "
                "knowledge.descriptions_per_aspect, shorten a file of reviewed ones, or set states_of: answers."
            )
        class_states.append(ClassStates(prompt, text, True, _rows(llm, question, answer, which)))
    return class_states


def _rows(llm: Llm, question: Sequence[int], answer: Sequence[int], which: Which) -> np.ndarray:
    """The states [L, D] that are asked for of an answer's tokens behind a question's."""
    states = _states(llm, [*question, *answer])
    return states[:, -1] if which == "answer_end_all_layers" else states[-1, len(question) :]


def _never(text: str) -> bool:
    """An answer whose states are read goes on until the model ends it."""
    return False


def _states(llm: Llm, ids: Sequence[int]) -> np.ndarray:
    """The states [L, T, D] of the tokens after each decoder layer, float32; the embeddings are left out."""
    import torch

    with torch.inference_mode():
        output = llm.model(
            input_ids=torch.tensor([list(ids)], device=llm.device),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        )
        return torch.stack([layer[0].float().cpu() for layer in output.hidden_states[1:]]).numpy()
