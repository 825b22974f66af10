"""How many fewer FLOPs a step takes than with the published trainers' structure, at BERT-base's and ViT-B/16's width.

One block of twelve stands for all: every tower's FLOPs but those of its ends grow with its blocks.
"""

import pytest
import torch

from benchmarks.methods_text import Pair, flops, random_biomedclip
from clinprompt.backbones.load import Backbone


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_biomedclip(blocks=1)


@pytest.mark.parametrize(("name", "ratio"), [("biomed_dpt", 20), ("biomedcoop", 40), ("cocoop", 25)])
def test_a_step_takes_a_fraction_of_the_plain_steps_flops(backbone: Backbone, name: str, ratio: float) -> None:
    pair = Pair(name, backbone)
    found = {}
    counts = [flops(lambda step=step: found.setdefault(step, pair.gradient(step))) for step in (pair.fast, pair.slow)]
    assert counts[1] >= ratio * counts[0]
    fast, slow = found.values()
    torch.testing.assert_close(fast, slow, atol=1e-3 * float(slow.abs().max()), rtol=0)
