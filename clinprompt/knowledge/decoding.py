"""Text completion in batches, with a key-value cache: a text depends on its own prompt and seed, not on its batch.

`transformers.generate` draws the noise of a batch from one generator: there a text depends on its neighbours too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clinprompt.knowledge.completion import Completion, Sampling
from clinprompt.knowledge.llm import Llm

_MAX_TOP_P_TOKENS = 1000


@torch.inference_mode()
def complete(
    llm: Llm,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    enough: Callable[[str], bool] = lambda text: False,
) -> list[Completion]:
    """Complete prompts, given as token ids, as one batch padded on the left; `enough(text)` stops a text early.

    Each text has its own noise (Gumbel-max with a generator seeded by its seed), so other texts in the batch change
    it only where two tokens tie to within float32 rounding.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    padded_ids, mask = _pad_left(prompts, min(llm.eos_ids))
    state = _DecodingState(llm, padded_ids, mask)
    new_tokens: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    rows = list(range(len(prompts)))  # which prompt each row of the shrinking batch belongs to
    for made in range(1, sampling.max_new_tokens + 1):
        tokens = _sample(state.logits, [generators[i] for i in rows], sampling)
        keep = []
        for position, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if token in llm.eos_ids:
                ended[row] = True
                continue
            new_tokens[row].append(token)
            if not enough(_text(llm, new_tokens[row])):
                keep.append(position)
        rows = [rows[position] for position in keep]
        if not rows or made == sampling.max_new_tokens:
            break
        state.step([tokens[position] for position in keep], keep)
    return [
        Completion(tokens, _text(llm, tokens), has_ended) for tokens, has_ended in zip(new_tokens, ended, strict=True)
    ]


def _text(llm: Llm, tokens: list[int]) -> str:
    return str(llm.tokenizer.decode(tokens, skip_special_tokens=True))


class _DecodingState:
    """The key-value cache, attention mask and last logits [B, V] of a batch from which finished rows are removed."""

    def __init__(self, llm: Llm, ids: Tensor, mask: Tensor) -> None:
        from transformers import DynamicCache

        self._model = llm.model
        self._cache = DynamicCache(config=llm.model.config)
        self._mask = mask.to(llm.device)
        self.logits = self._forward(ids.to(llm.device), self._positions())

    def step(self, tokens: list[int], keep: list[int]) -> None:
        device = self._mask.device
        if len(keep) < len(self._mask):
            index = torch.tensor(keep)  # on the CPU: the layers may lie on several GPUs
            self._cache.batch_select_indices(index)
            self._mask = self._mask[index]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(keep), 1)], dim=1)
        self.logits = self._forward(torch.tensor(tokens, device=device)[:, None], self._positions()[:, -1:])

    def _positions(self) -> Tensor:
        return (self._mask.cumsum(1) - 1).clamp(min=0)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        output: Any = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()


def _pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def _sample(logits: Tensor, generators: list[torch.Generator], sampling: Sampling) -> list[int]:
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    scores = torch.log_softmax(logits / sampling.temperature, -1).cpu()
    top = scores.topk(min(_MAX_TOP_P_TOKENS, scores.shape[-1]), -1)
    mass_before = top.values.exp().cumsum(-1) - top.values.exp()
    # The noise belongs to the token's id, so it is drawn for the whole vocabulary.
    uniform = torch.stack([torch.rand(scores.shape[-1], generator=g) for g in generators]).gather(-1, top.indices)
    gumbel = -torch.log(-torch.log(uniform.clamp(min=1e-20)))
    winner = (top.values + gumbel).masked_fill(mass_before >= sampling.top_p, -torch.inf).argmax(-1, keepdim=True)
    return top.indices.gather(-1, winner)[:, 0].tolist()
