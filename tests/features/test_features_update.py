"""Bringing a store up to date: the same bytes whatever happened before, and no row computed twice."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clinprompt.backbones.load import Backbone
from clinprompt.data.codecs import decode
from clinprompt.errors import GpuOutOfMemory, InputCorrupt, InputMissing
from clinprompt.features import store as store_module
from clinprompt.features import update as update_module
from clinprompt.features.extract import Forward
from clinprompt.features.store import FeatureStore
from clinprompt.features.update import update_store
from clinprompt.files import sha256_folder

Images = dict[str, Path]


def update(path: Path, backbone: Backbone, images: Images, **changes: Any) -> tuple[int, int, int, int]:
    settings: dict[str, Any] = {"intensity": "auto", "batch_size": 16, "workers": 0, "precision": "float32"}
    return astuple(update_store(path, backbone, images, **settings | changes))  # images, computed, reused, removed


def some(images: Images, start: int, stop: int) -> Images:
    return dict(list(images.items())[start:stop])


@pytest.fixture
def scratch(tmp_path: Path, backbone: Backbone, images: Images) -> Path:
    """The store of all images, computed in one go."""
    path = tmp_path / "scratch" / "features"
    path.parent.mkdir()
    assert update(path, backbone, images) == (42, 42, 0, 0)
    return path


def test_features_are_those_of_each_image_on_its_own(scratch: Path, backbone: Backbone, images: Images) -> None:
    store = FeatureStore.open(scratch)
    for digest, path in some(images, 0, 8).items():
        pixels = backbone.preprocessing.apply(decode(path.read_bytes(), "auto"))
        expected = backbone.encode_images(torch.from_numpy(pixels)[None])
        np.testing.assert_allclose(store.get([digest]), expected, rtol=0, atol=2e-5)
    assert store.identity["backbone"]["digest"] == backbone.digest


@pytest.mark.parametrize("workers", [1, 3])
def test_number_of_workers_does_not_change_a_bit(
    scratch: Path, tmp_path: Path, backbone: Backbone, images: Images, workers: int
) -> None:
    update(tmp_path / "features", backbone, images, workers=workers)
    assert sha256_folder(tmp_path / "features") == sha256_folder(scratch)


def test_added_images_alone_are_computed_and_the_bytes_are_those_of_one_run(
    scratch: Path, tmp_path: Path, backbone: Backbone, images: Images
) -> None:
    path = tmp_path / "features"
    assert update(path, backbone, some(images, 0, 5)) == (5, 5, 0, 0)
    assert update(path, backbone, some(images, 0, 32)) == (32, 27, 5, 0)
    assert update(path, backbone, images) == (42, 10, 32, 0)
    assert sha256_folder(path) == sha256_folder(scratch)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features", "images", "scratch"]


def test_images_that_are_gone_leave_the_store(tmp_path: Path, backbone: Backbone, images: Images) -> None:
    path, direct = tmp_path / "features", tmp_path / "direct"
    update(path, backbone, some(images, 0, 30))
    assert update(path, backbone, some(images, 10, 40)) == (30, 10, 20, 10)
    update(direct, backbone, some(images, 10, 40))
    assert sha256_folder(path) == sha256_folder(direct)
    with pytest.raises(InputMissing):
        FeatureStore.open(path).get([next(iter(images))])


def test_nothing_new_leaves_the_files_alone(scratch: Path, backbone: Backbone, images: Images) -> None:
    before = {path.name: path.stat().st_ino for path in scratch.iterdir()}
    assert update(scratch, backbone, images) == (42, 0, 42, 0)
    assert {path.name: path.stat().st_ino for path in scratch.iterdir()} == before


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"intensity": "full"}])
def test_other_settings_share_no_rows(
    scratch: Path, backbone: Backbone, images: Images, change: dict[str, Any]
) -> None:
    assert update(scratch, backbone, images, **change) == (42, 42, 0, 0)


def test_another_backbone_shares_no_rows(
    scratch: Path, backbone: Backbone, other_backbone: Backbone, images: Images
) -> None:
    before = FeatureStore.open(scratch).get(list(images))
    assert update(scratch, other_backbone, images) == (42, 42, 0, 0)
    assert not np.allclose(FeatureStore.open(scratch).get(list(images)), before)


def test_bfloat16_without_instructions_for_it_is_recorded_as_float32(
    scratch: Path, backbone: Backbone, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module, "computes_bfloat16", lambda device: False)
    assert update(scratch, backbone, images, precision="bfloat16") == (42, 0, 42, 0)
    assert FeatureStore.open(scratch).identity["precision"] == "float32"


def test_bfloat16_features_are_close_to_those_in_float32(
    scratch: Path, backbone: Backbone, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = FeatureStore.open(scratch).get(list(images))
    for module in ("update", "extract"):
        monkeypatch.setattr(f"clinprompt.features.{module}.computes_bfloat16", lambda device: True)
    assert update(scratch, backbone, images, precision="bfloat16") == (42, 42, 0, 0)
    assert FeatureStore.open(scratch).identity["precision"] == "bfloat16"
    close = FeatureStore.open(scratch).get(list(images))
    assert not np.array_equal(close, exact)
    assert (np.sum(close * exact, 1) / np.linalg.norm(close, axis=1) / np.linalg.norm(exact, axis=1)).min() > 0.999


def test_a_damaged_shard_is_computed_again_and_the_others_are_kept(
    tmp_path: Path, backbone: Backbone, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "ROWS_PER_SHARD", 16)
    path = tmp_path / "features"
    update(path, backbone, images)
    digest = sha256_folder(path)
    shard = path / "shard-00002.safetensors"
    lost = len(FeatureStore.open(path).ids_of(2))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert 0 < lost < 42
    assert update(path, backbone, images) == (42, lost, 42 - lost, 0)
    assert sha256_folder(path) == digest


@pytest.mark.parametrize("name", ["index.parquet", "store.json"])
def test_a_store_that_can_not_be_read_is_made_anew(
    scratch: Path, backbone: Backbone, images: Images, name: str
) -> None:
    digest = sha256_folder(scratch)
    (scratch / name).write_bytes(b"{")
    assert update(scratch, backbone, images) == (42, 42, 0, 0)
    assert sha256_folder(scratch) == digest


def test_linked_and_read_only_files_of_the_old_store_are_not_written_to(
    tmp_path: Path, backbone: Backbone, images: Images
) -> None:
    path, cache = tmp_path / "features", tmp_path / "cache"
    update(path, backbone, some(images, 0, 20))
    shutil.copytree(path, cache)
    for file in path.iterdir():
        file.unlink()
        os.link(cache / file.name, file)
        file.chmod(0o444)
    digest = sha256_folder(cache)
    assert update(path, backbone, images) == (42, 22, 20, 0)
    assert sha256_folder(cache) == digest


def test_a_kill_between_the_two_renames_loses_nothing(
    scratch: Path, tmp_path: Path, backbone: Backbone, images: Images
) -> None:
    digest = sha256_folder(scratch)
    scratch.rename(scratch.with_name(".features.old"))
    assert update(scratch, backbone, images) == (42, 0, 42, 0)
    assert sha256_folder(scratch) == digest


def stop_after(backbone: Backbone, batches: int, stop: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = backbone.model.encode_image, []

    def encode_image(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > batches:
            stop()
        features: torch.Tensor = encode(pixels)
        return features

    monkeypatch.setattr(backbone.model, "encode_image", encode_image)


def test_an_interrupted_run_goes_on_where_it_was(
    scratch: Path, tmp_path: Path, backbone: Backbone, images: Images
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    path = tmp_path / "features"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(backbone, 2, interrupt, patch)
        with pytest.raises(KeyboardInterrupt):
            update(path, backbone, images, batch_size=16)
    assert not path.exists()
    assert update(path, backbone, images)[1] < 42
    assert sha256_folder(path) == sha256_folder(scratch)
    assert not path.with_name(".features.parts").exists()


def test_a_full_disk_at_the_very_end_costs_no_computing(
    scratch: Path, tmp_path: Path, backbone: Backbone, images: Images
) -> None:
    def disk_is_full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "features"
    update(path, backbone, some(images, 0, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clinprompt.features.update.write_store", disk_is_full)
        with pytest.raises(OSError, match="No space"):
            update(path, backbone, images)
    assert update(path, backbone, images) == (42, 0, 42, 0)
    assert sha256_folder(path) == sha256_folder(scratch)


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
from clinprompt.backbones.load import load_backbone
from clinprompt.features.update import update_store
sys.path.insert(0, sys.argv[4])
from test_features_update import stop_after, update

backbone = load_backbone("own", sys.argv[1])
images = {path.stem: path for path in sorted(Path(sys.argv[2]).iterdir())}
stop_after(backbone, 3, lambda: os.kill(os.getpid(), signal.SIGKILL), pytest.MonkeyPatch())
update(Path(sys.argv[3]), backbone, images, batch_size=8, workers=2, flush_seconds=0)
"""


def test_after_kill_9_the_finished_batches_are_not_computed_again(
    tmp_path: Path, backbone_folder: Path, backbone: Backbone, images: Images
) -> None:
    path, direct = tmp_path / "features", tmp_path / "direct"
    command = [sys.executable, "-c", KILLED, backbone_folder, tmp_path / "images", path, Path(__file__).parent]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True, timeout=600)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    damaged, *_ = sorted(path.with_name(".features.parts").rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert update(path, backbone, images, batch_size=8) == (42, 42 - 8, 8, 0)
    update(direct, backbone, images, batch_size=8)
    assert sha256_folder(path) == sha256_folder(direct)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda path: path.write_bytes(b"not an image"), InputCorrupt, "not the one that the manifest lists"),
        (lambda path: path.write_bytes(b""), InputCorrupt, "not the one that the manifest lists"),
        (lambda path: path.unlink(), InputMissing, "does not exist"),
    ],
)
def test_a_bad_image_is_named(
    tmp_path: Path,
    backbone: Backbone,
    images: Images,
    workers: int,
    damage: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    victim = list(images.values())[33]
    damage(victim)
    with pytest.raises(error, match=message) as caught:
        update(tmp_path / "features", backbone, images, workers=workers)
    assert str(victim) in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not (tmp_path / "features").exists()


def test_an_image_that_can_not_be_decoded_is_named(tmp_path: Path, backbone: Backbone, images: Images) -> None:
    from clinprompt.files import sha256_bytes

    data = next(iter(images.values())).read_bytes()[:-40]
    victim = tmp_path / "images" / "broken.png"
    victim.write_bytes(data)
    with pytest.raises(InputCorrupt, match=r"broken\.png can't be decoded"):
        update(tmp_path / "features", backbone, {sha256_bytes(data): victim})


def test_features_that_are_not_finite_are_refused(
    tmp_path: Path, backbone: Backbone, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone.model, "encode_image", lambda pixels: torch.full((len(pixels), 32), float("nan")))
    with pytest.raises(InputCorrupt, match=sorted(images)[0]):
        update(tmp_path / "features", backbone, images)


def test_too_little_gpu_memory_halves_the_batch_until_it_fits() -> None:
    sizes: list[int] = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 5:
            raise torch.OutOfMemoryError
        return pixels.flatten(1)

    pixels = torch.rand(32, 3, 2, 2)
    forward = Forward(encode, 32, torch.device("cpu"), "float32")
    assert torch.equal(forward(pixels), pixels.flatten(1))
    assert sizes == [32, 16, 8, *[4] * 8]
    forward(pixels)
    assert sizes[11:] == [4] * 8


def test_too_little_gpu_memory_for_one_image_is_said() -> None:
    def encode(pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(GpuOutOfMemory, match="single image"):
        Forward(encode, 4, torch.device("cpu"), "float32")(torch.rand(4, 3, 2, 2))
