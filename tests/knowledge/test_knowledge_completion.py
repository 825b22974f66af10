"""Decoding: against plain loops without a cache, and independent of the batch."""

import numpy as np
import torch
from scipy.stats import chisquare

from clinprompt.knowledge.completion import Sampling, seed_of
from clinprompt.knowledge.decoding import complete
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.prompts import token_ids

PROMPTS = ["a brain", "describe the shape of a glioma on a brain MRI", "tissue"]
SAMPLING = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=24)


def prompts(llm: Llm) -> list[list[int]]:
    return [token_ids(llm, text) for text in PROMPTS]


def next_scores(llm: Llm, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return llm.model(torch.tensor([ids])).logits[0, -1]


def nucleus(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The probabilities of the next token by the definition of nucleus sampling."""
    p = torch.softmax(scores.double() / sampling.temperature, -1)
    kept, mass = torch.zeros_like(p), 0.0
    for token in p.argsort(descending=True).tolist():
        if mass >= sampling.top_p:
            break
        kept[token] = p[token]
        mass += float(p[token])
    return kept / kept.sum()


def test_greedy_decoding_equals_a_loop_without_cache(llm: Llm) -> None:
    made = complete(llm, prompts(llm), [0, 0, 0], Sampling(0, 1, 24))
    for prompt, completion in zip(prompts(llm), made, strict=True):
        ids: list[int] = []
        while len(ids) < 24 and (token := int(next_scores(llm, prompt + ids).argmax())) not in llm.eos_ids:
            ids.append(token)
        assert completion.tokens == ids


def test_sampling_equals_a_loop_with_the_same_noise(llm: Llm) -> None:
    made = complete(llm, prompts(llm), [1, 2, 3], SAMPLING)
    for prompt, seed, completion in zip(prompts(llm), [1, 2, 3], made, strict=True):
        generator = torch.Generator().manual_seed(seed)
        ids: list[int] = []
        for _ in range(24):
            p = nucleus(next_scores(llm, prompt + ids), SAMPLING)
            gumbel = -torch.log(-torch.log(torch.rand(len(p), generator=generator).double()))
            token = int((p.log() + gumbel).argmax())
            if token in llm.eos_ids:
                break
            ids.append(token)
        assert completion.tokens == ids


def test_tokens_are_drawn_with_the_nucleus_probabilities(llm: Llm) -> None:
    sampling, prompt, n = Sampling(0.8, 0.8, 1), prompts(llm)[0], 3000
    expected = nucleus(next_scores(llm, prompt), sampling).numpy()
    made = complete(llm, [prompt] * n, [seed_of("draw", i) for i in range(n)], sampling)
    eos = min(llm.eos_ids)
    counts = np.bincount([c.tokens[0] if c.tokens else eos for c in made], minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    likely = expected * n >= 5
    observed = [*counts[likely], counts[~likely].sum()]
    wanted = [*(expected[likely] * n), expected[~likely].sum() * n]
    if wanted[-1] == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    assert len(wanted) > 2
    assert chisquare(observed, wanted).pvalue > 0.001


def test_a_text_does_not_depend_on_the_rest_of_the_batch(llm: Llm) -> None:
    together = complete(llm, prompts(llm), [1, 2, 3], SAMPLING)
    alone = [complete(llm, [p], [s], SAMPLING)[0] for p, s in zip(prompts(llm), [1, 2, 3], strict=True)]
    reversed_ = complete(llm, prompts(llm)[::-1], [3, 2, 1], SAMPLING)[::-1]
    assert together == alone == reversed_


def test_other_seeds_give_other_texts(llm: Llm) -> None:
    made = complete(llm, [prompts(llm)[0]] * 8, list(range(8)), SAMPLING)
    assert len({tuple(c.tokens) for c in made}) > 1


def test_a_text_that_is_enough_gets_no_more_tokens(llm: Llm) -> None:
    full = complete(llm, prompts(llm), [1, 2, 3], SAMPLING)
    cut = complete(llm, prompts(llm), [1, 2, 3], SAMPLING, enough=lambda text: len(text) >= 5)
    assert any(len(c.tokens) < len(f.tokens) for c, f in zip(cut, full, strict=True))
    for short, long in zip(cut, full, strict=True):
        assert short.tokens == long.tokens[: len(short.tokens)]


def test_the_end_token_ends_a_text_and_is_not_part_of_it(llm: Llm) -> None:
    made = complete(llm, [prompts(llm)[0]] * 40, list(range(40)), Sampling(3.0, 1, 60))
    assert any(c.ended for c in made)
    for completion in made:
        assert not set(completion.tokens) & llm.eos_ids
        assert completion.ended == (len(completion.tokens) < 60)


def test_seeds_differ_with_every_part() -> None:
    assert len({seed_of(0, "a", "shape", 0), seed_of(0, "a", "shape", 1), seed_of(0, "as", "hape", 0)}) == 3
    assert 0 <= seed_of("x") < 2**63
