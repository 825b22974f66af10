"""What the language model knows of a class, as CILMP takes it: every layer's state of an answer's final token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clinprompt.data.card import Card, ClassInfo
from clinprompt.knowledge.decode import Sampling, complete
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.prompts import Prompt, features_prompt, token_ids
from clinprompt.progress import progress


@dataclass(frozen=True)
class ClassStates:
    """A class's question, the model's greedy answer, and `states` [L, D] float32: row l is decoder layer l + 1."""

    prompt: Prompt
    answer: str
    ended: bool
    states: np.ndarray


def hidden_states(llm: Llm, card: Card, classes: Sequence[ClassInfo], max_new_tokens: int) -> list[ClassStates]:
    """Ask about each class's distinctive visual features and keep the states of the answer's final token.

    The answer is greedy; an end-of-sequence token is appended where the model was cut off; a second forward pass over
    question and answer gives the states. The last layer's row has passed the model's final norm, as transformers
    reports it. One class at a time: padding would change the last digits.
    """
    sampling = Sampling(temperature=0, top_p=1, max_new_tokens=max_new_tokens)
    found = []
    for info in progress(classes, "Reading hidden states", unit="class"):
        prompt = features_prompt(llm, card, info)
        question = token_ids(llm, prompt.text)
        answer = complete(llm, [question], [0], sampling)[0]
        states = final_token_states(llm, [*question, *answer.tokens, llm.tokenizer.eos_token_id])
        found.append(ClassStates(prompt, answer.text, answer.ended, states))
    return found


@torch.inference_mode()
def final_token_states(llm: Llm, ids: Sequence[int]) -> np.ndarray:
    """The states [L, D] of the last token after each decoder layer, float32; the embeddings are left out."""
    output = llm.model(
        input_ids=torch.tensor([list(ids)], device=llm.device),
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,
    )
    return torch.stack([layer[0, -1] for layer in output.hidden_states[1:]]).float().cpu().numpy()
