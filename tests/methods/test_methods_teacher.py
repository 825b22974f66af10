"""The bank of descriptions that teaches, the selection among them, and the losses that pull towards it."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from benchmarks.plain.text import selected
from clinprompt.errors import DataRejected
from clinprompt.prompting import teacher
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.prompting.teacher import TeacherBank

GOLDEN = Path(os.environ.get("CLINPROMPT_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
NAMES = ("glioma", "no tumour")


def bank_of(rows: list[torch.Tensor]) -> TeacherBank:
    """A bank of given features, each [N_c, e]."""
    longest = max(map(len, rows))
    features = torch.stack([F.pad(F.normalize(one, dim=-1), (0, 0, 0, longest - len(one))) for one in rows])
    return TeacherBank(features, torch.arange(longest) < torch.tensor([[len(one)] for one in rows]))


def random_bank(counts: list[int], seed: int = 0) -> tuple[TeacherBank, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, 6, generator=generator) for n in counts]
    return bank_of(rows), rows, F.normalize(torch.randn(5, 6, generator=generator), dim=-1)


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_the_bank_holds_unit_features_of_every_sentence(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = make_backbone(kind)
    sentences = (("a dark spot .", "bright"), ("an even and quiet texture .", "no", "nothing"))
    bank = TeacherBank.of(Task(backbone, NAMES, 0, Knowledge(descriptions=sentences)), "biomedcoop")
    assert bank.real.tolist() == [[True, True, False], [True, True, True]]
    for c, some in enumerate(sentences):
        plain = F.normalize(backbone.model.encode_text(backbone.tokenize(list(some))), dim=-1)
        torch.testing.assert_close(bank.features[c, : len(some)], plain, atol=1e-5, rtol=0)
        torch.testing.assert_close(bank.mean()[c], F.normalize(plain.mean(0), dim=0), atol=1e-5, rtol=0)
    assert not bank.features[0, 2].any()


@pytest.mark.parametrize(("descriptions", "name"), [((("a",), ()), "no tumour"), ((), "glioma")])
def test_a_class_without_descriptions_is_named(
    make_backbone: Callable[[str], Any], descriptions: Any, name: str
) -> None:
    task = Task(make_backbone("clip"), NAMES, 0, Knowledge(descriptions=descriptions))
    with pytest.raises(DataRejected, match=f"class '{name}' has no accepted description, and biomedcoop learns"):
        TeacherBank.of(task, "biomedcoop")


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 7), min_size=2, max_size=5), tau=st.floats(0.3, 2.0), seed=st.integers(0, 999))
def test_selection_equals_the_published_steps(counts: list[int], tau: float, seed: int) -> None:
    bank, rows, images = random_bank(counts, seed)
    scores = []
    for j in range(max(counts)):
        having = [F.normalize(one[j], dim=0) for one in rows if len(one) > j]
        scores.append(sum(max(20 * float(v @ e) for e in having) for v in images) / len(images))
    torch.testing.assert_close(bank.scores(images, 20.0), torch.tensor(scores), atol=1e-4, rtol=0)
    values = torch.tensor(scores)
    far = ((values - values.mean()) / values.std(correction=min(1, len(values) - 1))).abs()
    if (far - tau).abs().min() > 1e-4:  # else rounding decides
        kept = bank.select(images, 20.0, tau).nonzero().flatten().tolist()
        assert kept == selected(values, tau)


def test_a_hand_made_outlier_is_left_out_and_the_rest_kept() -> None:
    e = torch.eye(4)
    images = e[:1].expand(3, -1)
    near = [F.normalize(e[0] + 0.1 * i * e[1], dim=0) for i in range(5)]
    rows = [torch.stack([*near[:2], -e[0], *near[2:]])] * 2
    bank = bank_of(rows)
    kept = bank.select(images, 100.0, 1.5)
    assert kept.tolist() == [True, True, False, True, True, True]
    torch.testing.assert_close(bank.mean(kept)[0], F.normalize(torch.stack(near).mean(0), dim=0))


def test_equal_scores_and_single_sentences_are_kept() -> None:
    for count in (1, 2, 5):
        bank = bank_of([torch.ones(count, 3), torch.ones(count, 3)])
        assert bank.select(F.normalize(torch.ones(2, 3), dim=-1), 10.0, 0.5).all()
    # Most scores equal: the median absolute deviation is 0.
    rows = torch.cat([torch.ones(5, 3), -torch.ones(1, 3)])
    kept = bank_of([rows, rows]).select(F.normalize(torch.ones(2, 3), dim=-1), 10.0, 1.5)
    assert kept.tolist() == [True] * 5 + [False]


def test_a_class_with_nothing_kept_keeps_all_its_sentences() -> None:
    bank, rows, _ = random_bank([1, 3])
    found = bank.mean(torch.tensor([False, True, False]))
    torch.testing.assert_close(found[0], F.normalize(rows[0][0], dim=0))
    torch.testing.assert_close(found[1], F.normalize(rows[1][1], dim=0))


def test_losses_are_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    t, m = (F.normalize(torch.randn(3, 4, generator=generator), dim=-1) for _ in range(2))
    pairs = [(float(t[c, k]), float(m[c, k])) for c in range(3) for k in range(4)]
    assert teacher.l1(t, m).item() == pytest.approx(sum(abs(a - b) for a, b in pairs) / 12, abs=1e-6)
    assert teacher.mse(t, m).item() == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / 12, abs=1e-6)
    assert teacher.cosine(t, m).item() == pytest.approx(1 - sum(a * b for a, b in pairs) / 3, abs=1e-6)
    # Two images, two classes: KL = sum q (log q - log p) / 4.
    student, master = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, math.log(4)]])
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75) + 0.2 * math.log(0.4) + 0.8 * math.log(1.6)
    assert teacher.kl(student, master).item() == pytest.approx(by_hand / 4, abs=1e-6)
    assert teacher.kl(student, student).item() == pytest.approx(0, abs=1e-7)


def golden_selections() -> list[Any]:
    found = [
        pytest.param(path.parent, id=path.parent.name)
        for path in sorted(GOLDEN.glob("*/case.json"))
        if "sdps_keep" in json.loads(path.read_text())["tensors"]["expected.safetensors"]
    ]
    return found or [pytest.param(None, marks=pytest.mark.skip(reason=f"no golden cases at {GOLDEN}"))]


@pytest.mark.parametrize("folder", golden_selections())
def test_the_selection_is_the_published_codes(folder: Path) -> None:
    record = json.loads((folder / "case.json").read_text())
    inputs, expected = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "expected"))
    bank = bank_of(list(inputs["teacher_text_features"]))
    images, scale = expected["image_features"], float(load_file(folder / "weights.safetensors")["logit_scale"].exp())
    bound = record["tolerances"]["logits_abs"]
    torch.testing.assert_close(bank.scores(images, scale), expected["sdps_scores"], atol=bound, rtol=0)
    kept = bank.select(images, scale, record["tau"])
    assert torch.equal(kept, expected["sdps_keep"].bool())
    unit = record["tolerances"]["unit_features_abs"]
    torch.testing.assert_close(bank.mean(kept), expected["teacher_selected_features"], atol=unit, rtol=0)
    torch.testing.assert_close(bank.mean(), expected["teacher_mean_features"], atol=unit, rtol=0)
