"""The demo backbone: its folder is what its papers say; its training is repeatable and its captions are true."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from clinprompt.backbones.table import read_table
from clinprompt.demo import phantom, train
from clinprompt.demo.captions import FACTS, attributes, caption, draw_scene
from clinprompt.files import read_json, sha256_file, sha256_folder

TINY = train.Recipe(scenes=24, held_out=8, steps=2, batch_size=8, warmup=1, seed=5)
NAMES = {"glioma_tumor": "glioma", "meningioma_tumor": "meningioma", "no_tumor": "no tumor"}
NAMES["pituitary_tumor"] = "pituitary tumor"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    train.main(["--out", str(folder), "--workers", "1", *options(TINY)])
    return folder


def options(recipe: train.Recipe) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(recipe).items()]


def patients(count: int, seed: int) -> list[phantom.Patient]:
    """`count` patients of each class, of a seed that no card uses."""
    rng = np.random.default_rng(seed)
    return [
        phantom.Patient(n, label, "test", str(rng.choice(list(phantom.SITES))), "F", 50, int(rng.integers(2**32)))
        for label in phantom.CLASSES
        for n in range(count)
    ]


def test_the_weights_digest_is_the_one_in_the_table_the_recipe_and_the_card() -> None:
    digest = sha256_file(train.FOLDER / train.WEIGHTS)
    assert digest == read_table()["demo-clip"].sha256
    assert digest == read_json(train.FOLDER / "recipe.json")["sha256"]
    assert digest in (train.FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_committed_recipe_is_the_default_one() -> None:
    assert read_json(train.FOLDER / "recipe.json")["recipe"] == dataclasses.asdict(train.Recipe())


def test_the_folder_is_small_and_its_card_says_what_it_is_not_for() -> None:
    assert sum(f.stat().st_size for f in train.FOLDER.iterdir()) < 25 * 2**20
    assert "Not for diagnosis" in (train.FOLDER / "README.md").read_text(encoding="utf-8")


def test_open_clip_loads_the_folder_offline_in_single_precision() -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{train.FOLDER}")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.visual.image_size == (train.SIZE, train.SIZE)
    assert preprocess is not None


def test_any_text_is_tokenised_and_the_end_token_has_the_largest_id() -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{train.FOLDER}")
    ids = tokenizer(["a photo of a glioma.", "A hypermetabolic Xyz-7 lesion, 12 mm; déjà vu?", ""])
    assert ids.shape == (3, 48)
    vocabulary = tokenizer.tokenizer
    assert vocabulary.eos_token_id == len(vocabulary) - 1 == int(ids.max())
    assert ((ids == vocabulary.eos_token_id).sum(dim=1) == 1).all()
    words = vocabulary.convert_ids_to_tokens(ids[0, 1:7])
    assert words[:5] == ["a", "photo", "of", "a", "glioma"]
    letters = tokenizer(["zq zebra quixotic"])
    assert vocabulary.unk_token_id not in letters


def test_zero_shot_by_class_names_beats_chance_and_a_linear_probe_beats_zero_shot() -> None:
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{train.FOLDER}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{train.FOLDER}")
    people = patients(30, seed=77)
    grey = np.stack([phantom.draw(p, 0, train.SIZE, 1.0) for p in people]).clip(0, 1)
    x = torch.from_numpy(((grey - train.MEAN) / train.STD).astype(np.float32))[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        image = F.normalize(model.encode_image(x), dim=-1)
        text = F.normalize(model.encode_text(tokenizer([f"a photo of a {NAMES[c]}." for c in phantom.CLASSES])), dim=-1)
    truth = np.array([phantom.CLASSES.index(p.label) for p in people])
    zero_shot = balanced_accuracy_score(truth, (image @ text.T).argmax(dim=1))
    half = np.arange(len(people)) % 2 == 0
    probe = LogisticRegression(C=10, max_iter=2000).fit(image[half], truth[half])
    assert zero_shot > 0.3
    assert balanced_accuracy_score(truth[~half], probe.predict(image[~half])) > max(0.55, zero_shot)


def test_training_again_gives_the_same_bytes_whatever_the_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    train.main(["--out", str(tmp_path / "again"), "--workers", "2", *options(TINY)])
    assert sha256_folder(tmp_path / "again") == sha256_folder(tiny)


def test_the_recipe_and_the_card_record_every_number(tiny: Path) -> None:
    record = read_json(tiny / "recipe.json")
    assert record["recipe"] == dataclasses.asdict(TINY)
    assert record["sha256"] == sha256_file(tiny / train.WEIGHTS)
    assert {"torch", "open_clip"} <= set(record["versions"])
    assert set(record["results"]) == {"retrieval_at_1_of_100", "retrieval_at_5_of_100"}
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tiny}")
    assert record["parameters"] == sum(p.numel() for p in model.parameters())


def test_the_training_images_are_none_of_the_datasets() -> None:
    ours = {hashlib.sha256(draw_scene(train.Recipe().seed, n, 64).pixels.tobytes()).hexdigest() for n in range(64)}
    drawn = [phantom.draw(p, n, 64, 1.0).clip(0, 1) for p in patients(4, seed=0) for n in range(2)]
    theirs = {hashlib.sha256((d * 255).round().astype(np.uint8).tobytes()).hexdigest() for d in drawn}
    assert len(ours) == 64
    assert not ours & theirs


def test_captions_agree_with_the_facts_that_the_scene_was_drawn_from() -> None:
    rng = np.random.default_rng(0)
    for index in range(200):
        scene = draw_scene(9, index, 32)
        facts = dict(zip(FACTS, attributes(scene), strict=True))
        words = f" {caption(scene, rng)} "
        if not facts["lesion"]:
            assert scene.lesion is None
            assert not scene.mask.any()
            continue
        assert scene.mask.any()
        assert not (" dark " in words and facts["bright"])
        assert not (" bright " in words and not facts["bright"])
        assert not (" irregular " in words and not facts["irregular"])
        assert not ("ill-defined" in words and not facts["ill-defined"])
        assert not ("midline" in words and not facts["midline"])


def test_class_names_are_rare_in_the_captions_of_brains() -> None:
    rng = np.random.default_rng(1)
    brains = [s for s in (draw_scene(10, index, 32) for index in range(300)) if s.organ == "brain"]
    named = [any(n in caption(s, rng) for n in ("glioma", "meningioma", "pituitary")) for s in brains for _ in range(5)]
    assert 0 < np.mean(named) < 0.2
