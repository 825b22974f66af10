"""The small M3D-CLIP: what the package carries loads and reads reports; its recipe sees sizes and no diagnosis."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.backbones.m3d import VolumeEncoder
from clinprompt.backbones.sizes import declared_sizes
from clinprompt.backbones.table import read_table
from clinprompt.data.load import load_card
from clinprompt.demo.volumes import random_weights, train
from clinprompt.demo.volumes.captions import PARTS, Scene, caption
from clinprompt.demo.volumes.objective import Places, start_at_differences
from clinprompt.demo.volumes.phantom import nifti_bytes
from clinprompt.demo.volumes.scanners import SCANNERS, scan
from clinprompt.demo.volumes.subjects import brain_at, subjects
from clinprompt.demo.volumes.towers import DEMO, PREPROCESSING, PUBLISHED, SIZES, TOKENS, initial_model, write_files
from clinprompt.files import read_json, sha256_file, sha256_folder

CARD = Path(__file__).parents[2] / "datasets" / "brain-phantom-3d.yaml"
TINY = train.Recipe(
    scenes=4,
    held_out=2,
    seeing=dataclasses.replace(train.Recipe.seeing, steps=2),
    pairing=dataclasses.replace(train.Recipe.pairing, steps=2),
)
REPORT = (
    "A photo of mild cognitive impairment: Hippocampal Vol: 11249.73, Ventricular size: 13905.10, Whole brain Vol: "
    "1733983.80, Entorhinal Vol: 3305.00, Fusiform Vol: 24962.00, Middle temporal Vol: Data unavailable"
)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("demo-m3d")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Made up: what captions are written from, without a brain."""
    rng = np.random.default_rng(0)
    empty = np.zeros(PREPROCESSING.volume, np.uint8)
    volumes = np.array([13000.0, 14000, 4000, 28000, 36000, 1800000])
    sizes = rng.normal(0, 1, (40, len(PARTS)))
    return [
        Scene(empty, np.zeros((252, 5)), size, volumes, SCANNERS["AB"[n % 2]], 60 + n % 20)
        for n, size in enumerate(sizes)
    ]


def test_the_weights_in_the_package_are_those_of_the_table_and_of_the_card() -> None:
    digest = sha256_file(train.FOLDER / train.WEIGHTS)
    assert digest == read_table()["demo-m3d"].sha256 == read_json(train.FOLDER / "recipe.json")["sha256"]
    card = (train.FOLDER / "README.md").read_text(encoding="utf-8")
    assert digest in card
    assert "Not for diagnosis" in card
    assert "Copyright (C) 1993-2009 Louis Collins" in " ".join(card.split())
    assert sum(file.stat().st_size for file in train.FOLDER.rglob("*") if file.is_file()) < 10 * 2**20


def test_declared_sizes_are_those_of_the_loaded_towers(backbone: Backbone) -> None:
    assert declared_sizes("demo-m3d").model_dump() == {
        "tokens": backbone.tokenize([""]).shape[1],
        "positions": backbone.text.context,
        "text_blocks": len(backbone.text.blocks),
        "image_blocks": len(backbone.vision.blocks),
        "patches": backbone.vision.patches,
        "patch": backbone.vision.patch[-1],
    }
    assert backbone.preprocessing == PREPROCESSING


def test_a_report_fits_beside_thirty_prompts_and_no_word_of_it_is_unknown(backbone: Backbone) -> None:
    names = [info.name for info in load_card(CARD).classes]
    ids = backbone.tokenize([REPORT, *names, "quixotic zebra, 12,345.6"])
    assert ids.shape[1] == TOKENS
    assert int((ids[0] != 0).sum()) + 30 <= TOKENS
    assert backbone.unknown_id not in ids
    assert len({tuple(row.tolist()) for row in ids}) == len(ids)
    assert backbone.text.context >= TOKENS + 30


def test_scans_of_both_scanners_are_read_to_the_grid_and_give_features(backbone: Backbone) -> None:
    from clinprompt.data.codecs import decode_image

    subject = subjects(6, 0)[0]
    brain, pose, _ = brain_at(subject, 0)
    pixels = []
    for scanner in SCANNERS.values():
        seen = scan(brain, pose, scanner, 64, np.random.default_rng(0))
        pixels.append(backbone.preprocessing.apply(decode_image(nifti_bytes(seen.values, seen.affine))))
    assert pixels[0].shape == (1, *PREPROCESSING.volume)
    assert np.corrcoef(pixels[0].ravel(), pixels[1].ravel())[0, 1] > 0.85  # the same head in the same place
    features = backbone.encode_images(torch.from_numpy(np.stack(pixels)))
    assert features.isfinite().all()


def test_captions_tell_sizes_and_never_a_diagnosis(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(1)
    said = [caption(scene, rng) for scene in scenes for _ in range(10)]
    words = " ".join(text.lower() for text, _ in said)
    assert not any(word in words for word in ("alzheimer", "dementia", "cogniti", "impairment", "mmse", " nc", " mci"))
    assert {len(told) for _, told in said} == {len(PARTS)}
    for text, told in said:
        for part, word in (("hippocampus", "hippocamp"), ("ventricles", "ventric"), ("fusiform", "fusiform")):
            assert (word in text.lower()) == told[PARTS.index(part)]


def test_sizes_in_words_agree_with_the_scene(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(2)
    for scene in scenes:
        for text in (caption(scene, rng)[0] for _ in range(10)):
            size = scene.sizes[PARTS.index("ventricles")]
            assert "enlarged ventricles" not in text or size > 0
            assert "shrunken ventricles" not in text or size < 0


def test_training_writes_a_folder_that_loads_and_records_its_recipe(tmp_path: Path) -> None:
    options = {"scenes": 4, "held-out": 2, "seeing-steps": 2, "pairing-steps": 2, "workers": 2}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert train.main(["--out", str(tmp_path / "own"), *arguments]) == 0
    record = read_json(tmp_path / "own" / "recipe.json")
    assert record["recipe"] == dataclasses.asdict(TINY)
    own = load_backbone("own", tmp_path / "own")
    assert own.preprocessing == PREPROCESSING
    assert own.logit_scale == pytest.approx(10, rel=0.01)


@torch.no_grad()
def test_the_tower_starts_at_what_tells_heads_apart() -> None:
    torch.manual_seed(0)
    sizes = dataclasses.replace(SIZES, volume=(16, 16, 16), width=6, heads=2, layers=1)
    encoder = VolumeEncoder(sizes)
    heads = torch.randn(1, 1, 16, 16, 16) + 0.1 * torch.randn(40, 1, 16, 16, 16)
    start_at_differences(encoder, heads)
    tokens = encoder.embed(heads)[:, 1:]
    varied = tokens - tokens.mean(0)
    assert float(varied.std()) == pytest.approx(1, abs=0.02)
    assert torch.allclose(tokens.mean(0), encoder.embed(heads.mean(0, keepdim=True))[0, 1:], atol=1e-3)
    codes = tokens.mean(0)
    assert len(torch.unique(codes.round(decimals=3), dim=0)) == len(codes)  # each place has its own
    cut = encoder.patch_embedding.patch_embeddings[0](heads)
    found = (cut - cut.mean(0)).flatten(0, 1)
    covariance = (varied.flatten(0, 1).T @ varied.flatten(0, 1)) / len(found)
    assert torch.allclose(covariance, covariance.diag().diag(), atol=1e-3)  # principal components do not correlate
    variance = torch.linalg.eigvalsh(found.T @ found / len(found)).flip(0)[:6]
    assert torch.allclose(
        covariance.diag() / covariance.diag().sum(), variance.sqrt() / variance.sqrt().sum(), atol=1e-3
    )


def test_places_are_targets_where_structures_vary() -> None:
    rng = np.random.default_rng(0)
    shares = np.zeros((30, 8, 5), np.float32)
    shares[:, 2] = rng.uniform(0, 1, (30, 5))
    shares[:, 3] = 0.5  # alike in all
    some = [Scene(np.zeros((1, 1, 1)), one, np.zeros(6), np.zeros(6), SCANNERS["A"], 60) for one in shares]
    places = Places.of(some)
    assert places.telling.tolist() == [2]
    deviations = places.deviations(places.shares)
    assert torch.allclose(deviations.square().mean((0, 1)), torch.ones(5), atol=1e-4)
    assert not deviations[:, 3].any()
    chosen = places.some(3, rng).tolist()
    assert chosen[0] == 2
    assert len(set(chosen)) == 4


def test_scenes_do_not_depend_on_the_number_of_workers() -> None:
    recipe = dataclasses.replace(TINY, scenes=2, held_out=1)
    one, two = (train.draw_scenes(recipe, workers) for workers in (1, 2))
    assert all((a.voxels == b.voxels).all() and (a.sizes == b.sizes).all() for a, b in zip(one, two, strict=True))


def test_the_small_preset_is_that_of_the_package(tmp_path: Path) -> None:
    write_files(tmp_path, DEMO)
    for file in ("config.json", "bert/config.json", "bert/tokenizer.json", "bert/tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (train.FOLDER / file).read_bytes(), file


def test_the_published_preset_has_the_published_number_of_parameters_and_grid(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = initial_model(PUBLISHED, 0)
    assert sum(p.numel() for p in model.parameters()) == 198_052_609
    write_files(tmp_path, PUBLISHED)
    declared = declared_sizes("published", tmp_path)
    assert (declared.image_blocks, declared.text_blocks, declared.tokens) == (12, 12, 512)
    config = read_json(tmp_path / "config.json")
    assert (config["img_size"], config["patch_size"]) == ([32, 256, 256], [4, 16, 16])


def test_random_weights_are_a_backbone_with_the_bytes_of_their_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_weights, "PUBLISHED", DEMO)  # of 198 million parameters there would be 0.8 GB a folder
    for name, seed in (("a", 1), ("again", 1), ("other", 2)):
        assert random_weights.main(["--out", str(tmp_path / name), "--seed", str(seed)]) == 0
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "again")
    assert sha256_file(tmp_path / "a" / train.WEIGHTS) != sha256_file(tmp_path / "other" / train.WEIGHTS)
    own = load_backbone("random", tmp_path / "a")
    assert own.encode_images(torch.zeros(1, 1, *DEMO.sizes.volume)).shape == (1, own.embed_dim)
    assert "predicts means nothing" in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")


def test_random_weights_replace_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert random_weights.main(["--out", str(tmp_path / "mine")]) == 64
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
