"""The projections of open-towers: committed as their recipe made them, repeatable, and captions that are true."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clinprompt.backbones.open_towers import WIDTH, projections
from clinprompt.backbones.table import read_table
from clinprompt.demo import projections as recipe
from clinprompt.demo.captions import FACTS, attributes, draw_scene
from clinprompt.demo.impressions import Look, names, report
from clinprompt.demo.organs import ORGANS
from clinprompt.demo.pairs import Pairs
from clinprompt.demo.projections import Recipe, Variant, retrieval, state_of, train
from clinprompt.files import read_json, sha256_file, sha256_folder

FILE = recipe.FOLDER / "projections.safetensors"
SMALL = Recipe(scenes=200, held_out=100, steps=40, batch_size=64, warmup=5, embed_dim=32)


def pairs(n: int = 300) -> Pairs:
    """Features of both sides that are linear in the same twelve numbers."""
    generator = torch.Generator().manual_seed(0)
    facts = torch.randn(n, 12, generator=generator)
    image, text = (facts @ torch.randn(12, WIDTH, generator=generator) for _ in range(2))
    noise = 0.1 * torch.randn(n, 2, WIDTH, generator=generator)
    return Pairs(2 * image + 1.0, text[:, None] + noise)


def test_the_committed_files_belong_together() -> None:
    record = read_json(recipe.FOLDER / "recipe.json")
    assert record["recipe"] == dataclasses.asdict(Recipe())
    assert record["sha256"] == sha256_file(FILE)
    card = (recipe.FOLDER / "README.md").read_text(encoding="utf-8")
    entry = read_table()["open-towers"]
    assert record["sha256"] in card
    assert all(f"`{name}` {wheel.version}" in card for name, wheel in (entry.wheels or {}).items())
    assert "Not for diagnosis" in card
    state = projections(FILE)
    assert state["visual.proj"].shape == (WIDTH, Recipe().embed_dim)
    assert record["parameters"] == sum(tensor.numel() for tensor in state.values())
    assert FILE.stat().st_size < 2**20


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("shape", ["linear", "mlp"])
@pytest.mark.parametrize("sides", ["both", "image"])
def test_each_variant_learns_which_belong_together(loss: str, shape: str, sides: str) -> None:
    data = pairs()
    joint = train(data.part(100, None), SMALL, Variant(shape, loss, sides))  # type: ignore[arg-type]
    assert retrieval(joint, data.part(0, 100))["retrieval_at_5_of_100"] > 0.3


@pytest.mark.parametrize("sides", ["both", "image"])
def test_what_is_saved_gives_the_same_cosines(tmp_path: Path, sides: str) -> None:
    data = pairs()
    joint = train(data, SMALL, Variant(sides=sides))  # type: ignore[arg-type]
    save_file(state_of(joint), tmp_path / "projections.safetensors")
    state = projections(tmp_path / "projections.safetensors")
    found = data.images[:5] @ state["visual.proj"], data.texts[:5, 0] @ state["text.proj.weight"].T
    expected = joint.images(data.images[:5]), joint.texts(data.texts[:5, 0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.nn.functional.normalize(one, dim=-1), other, atol=2e-3, rtol=0)
    assert float(state["logit_scale"].exp()) == pytest.approx(float(joint.scale()), rel=1e-2)


def test_the_command_gives_the_same_bytes_again_and_writes_every_number_down(tmp_path: Path) -> None:
    data = pairs(300)
    save_file({"images": data.images, "texts": data.texts}, tmp_path / "pairs")
    options = ["--cache", str(tmp_path / "pairs"), "--scenes=200", "--held-out=100", "--steps=20", "--seed=5"]
    for name in ("one", "two"):
        assert recipe.main([*options, "--out", str(tmp_path / name)]) == 0
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")
    record = read_json(tmp_path / "one" / "recipe.json")
    assert record["recipe"] == dataclasses.asdict(Recipe(scenes=200, held_out=100, steps=20, seed=5))
    assert set(record["results"]) == {"retrieval_at_1_of_100", "retrieval_at_5_of_100"}


def test_captions_agree_with_what_was_drawn() -> None:
    rng, told = np.random.default_rng(0), set()
    wrong = {
        "large": (" small ", " tiny ", " little "), "bright": (" dark ", " hypointense ", " low-signal "),
        "irregular": (" round ", " smooth ", " oval "), "heterogeneous": (" homogeneous ", " uniform "),
        "ill-defined": (" well-defined ", " circumscribed "),
    }  # fmt: skip
    for index in range(150):
        scene = draw_scene(9, index, 32)
        facts = dict(zip(FACTS, attributes(scene), strict=True))
        words = f" {report(scene, rng)} "
        told.add(words)
        for fact, opposites in wrong.items():
            assert not (facts[fact] == 1 and any(word in words for word in opposites)), words
        if scene.lesion is None:
            assert any(word in words for word in (" no ", "normal", "unremarkable", "healthy", "no signs")), words
    assert len(told) > 140


def test_every_look_has_a_name_in_every_organ() -> None:
    for organ in ORGANS:
        for bits in range(256):
            look = Look(*(bool(bits >> n & 1) for n in range(8)))
            assert names(organ, look)
            assert all(name == name.lower() for name in names(organ, look))
