"""Hidden states of the language model for each class, as CILMP uses them: by default all layers' of an answer's end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clinprompt.data.card import Card, ClassInfo
from clinprompt.knowledge.asking import complete_batch
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
        answer: the model's greedy answer; "" where none was generated.
        ended: whether the model itself ended the answer.
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
) -> list[ClassStates]:
    """The hidden states of each class, from a question about its distinctive visual features and the model's answer.

    The answer is greedy, of `answer_tokens` tokens at most; the end-of-sequence token stands behind it where the model
    itself ended it, and nothing where it was cut. A second forward pass over question and answer gives the states. Row
    l of all layers is decoder layer l + 1; the last layer's states have passed the model's final norm, as transformers
    reports them. One class at a time: padding would change the last digits. Answers that are `kept` are not made again.
    """
    sampling = Sampling(temperature=0, top_p=1, max_new_tokens=answer_tokens)
    class_states = []
    for class_info in progress(classes, "Reading hidden states", unit="class"):
        prompt = features_prompt(llm, Subject.of(card, class_info))
        question = token_ids(llm, prompt.text)
        if which == "question_end_all_layers":
            class_states.append(ClassStates(prompt, "", True, _states(llm, question)[:, -1]))
            continue
        answer = complete_batch(llm, [prompt.text], [0], sampling, _never, kept or Samples())[0]
        end = [llm.tokenizer.eos_token_id] if answer.ended else []
        states = _states(llm, [*question, *answer.tokens, *end])
        rows = states[:, -1] if which == "answer_end_all_layers" else states[-1, len(question) :]
        class_states.append(ClassStates(prompt, answer.text, answer.ended, rows))
    return class_states


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
