"""Generation of descriptions, against a bare batched `generate` call of the same model: tokens per second.

    python -m benchmarks.generation [--batch 12] [--tokens 48] [--repeats 3] [--sampled]

Both complete the same prompts, padded on the left, in one batch, by exactly so many tokens each: here by
`clinprompt.knowledge.decoding.complete`, there by `transformers`' `generate` with its own key-value cache. No text
ends early on either side. The two take turns, so that other work on the machine slows both; the ratio is of the medians
(aim: at least 0.9). By default both take the most probable token, and the texts are compared; with --sampled both
sample by the nucleus, each with its own noise.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from clinprompt.data.load import load_card
from clinprompt.knowledge.completion import Sampling
from clinprompt.knowledge.decoding import complete
from clinprompt.knowledge.generate import TOP_P
from clinprompt.knowledge.llm import Llm, load_llm
from clinprompt.knowledge.prompts import aspect_prompts, token_ids
from clinprompt.knowledge.subject import Subject
from clinprompt.params import load_params

ROOT = Path(__file__).parents[1]


class _Never(frozenset[int]):
    """End tokens of which none ends a text: they are what pads."""

    def __contains__(self, token: object) -> bool:
        return False


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sampled", action="store_true")
    arguments = parser.parse_args()
    params = load_params(ROOT / "params.yaml").knowledge
    llm = load_llm(params.llm or "smollm2-135m-instruct", params.path)
    prompts = prompts_of(llm, arguments.batch)
    sampling = Sampling(params.temperature if arguments.sampled else 0, TOP_P, arguments.tokens)
    endless = replace(llm, eos_ids=_Never(llm.eos_ids))
    pad = llm.tokenizer.eos_token_id
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    own, bare, own_cpu, bare_cpu = [], [], [], []
    for _ in range(arguments.repeats):
        start, cpu = time.perf_counter(), time.process_time()
        completions = complete(endless, prompts, list(range(len(prompts))), sampling)
        own.append(time.perf_counter() - start)
        own_cpu.append(time.process_time() - cpu)
        start, cpu = time.perf_counter(), time.process_time()
        generated = bare_generate(llm, ids, mask, sampling, pad)
        bare.append(time.perf_counter() - start)
        bare_cpu.append(time.process_time() - cpu)
    made = arguments.batch * arguments.tokens
    same = [c.tokens == row for c, row in zip(completions, generated[:, width:].tolist(), strict=True)]
    result = {
        "batch": arguments.batch,
        "tokens": made,
        "sampled": arguments.sampled,
        "tokens_per_second": round(made / statistics.median(own), 1),
        "bare_tokens_per_second": round(made / statistics.median(bare), 1),
        "ratio": round(statistics.median(bare) / statistics.median(own), 3),
        "ratio_of_processor_seconds": round(statistics.median(bare_cpu) / statistics.median(own_cpu), 3),
        "equal_texts": None if arguments.sampled else sum(same),
    }
    print(json.dumps(result))


def prompts_of(llm: Llm, count: int) -> list[list[int]]:
    """The default prompts of `brain-tumor-mri`, as token ids, each as often as it takes."""
    card, params = load_card(ROOT / "datasets/brain-tumor-mri.yaml"), load_params(ROOT / "params.yaml").knowledge
    subjects = [Subject.of(card, info) for info in card.classes]
    texts = [prompt.text for one in subjects for prompt in aspect_prompts(llm, one, [], params.samples_of)]
    return [token_ids(llm, text) for text in islice((text for _ in range(count) for text in texts), count)]


@torch.inference_mode()
def bare_generate(llm: Llm, ids: torch.Tensor, mask: torch.Tensor, sampling: Sampling, pad: int) -> torch.Tensor:
    """The call that anybody would write."""
    chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    output: torch.Tensor = llm.model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=sampling.max_new_tokens,
        min_new_tokens=sampling.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=None,
        **(chosen if sampling.temperature else {"do_sample": False}),
    )
    return output


if __name__ == "__main__":
    main()
