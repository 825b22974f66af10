"""The feature store on disk: what is written is what is read, or a sentence says which file is not."""

from pathlib import Path

import numpy as np
import pytest

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.features import store as store_module
from clinprompt.features.store import FeatureStore, write_store
from clinprompt.files import sha256_bytes, sha256_folder

IDENTITY = {"backbone": {"name": "own", "digest": "d" * 64}, "precision": "float32"}


def rows(n: int, dim: int = 5) -> tuple[list[str], np.ndarray]:
    ids = sorted(sha256_bytes(str(i).encode()) for i in range(n))
    return ids, np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """100 rows in shards of at most a dozen or so."""
    monkeypatch.setattr(store_module, "ROWS_PER_SHARD", 8)
    write_store(tmp_path / "features", IDENTITY, *rows(100))
    return tmp_path / "features"


def test_rows_come_back_in_the_order_asked_for(store: Path) -> None:
    ids, features = rows(100)
    order = np.random.default_rng(1).integers(0, 100, 250)
    opened = FeatureStore.open(store)
    assert np.array_equal(opened.get([ids[i] for i in order]), features[order])
    assert opened.get([]).shape == (0, 5)
    assert (opened.dim, opened.backbone_digest) == (5, "d" * 64)


@pytest.mark.parametrize(("n", "shards"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 4), (100, 16)])
def test_number_of_shards_is_the_power_of_two_that_the_rows_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, shards: int
) -> None:
    monkeypatch.setattr(store_module, "ROWS_PER_SHARD", 8)
    write_store(tmp_path / "features", IDENTITY, *rows(n))
    assert len(list((tmp_path / "features").glob("shard-*.safetensors"))) == shards
    assert np.array_equal(FeatureStore.open(tmp_path / "features").get(rows(n)[0]), rows(n)[1])


def test_an_id_that_is_not_there_is_named(store: Path) -> None:
    ids, _ = rows(100)
    for stranger in ("0" * 64, "f" * 64, sha256_bytes(b"stranger")):
        with pytest.raises(InputMissing, match=stranger):
            FeatureStore.open(store).get([ids[0], stranger])


def test_equal_rows_give_equal_bytes(store: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "again", IDENTITY, *rows(100))
    assert sha256_folder(store) == sha256_folder(tmp_path / "again")


def test_a_flipped_byte_is_found_wherever_it_is(store: Path) -> None:
    files = sorted(path for path in store.iterdir() if path.name != "store.json")
    for path in files:
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            broken = bytearray(whole)
            broken[at] ^= 0x10
            path.write_bytes(broken)
            with pytest.raises(InputCorrupt, match=path.name):
                FeatureStore.open(store)
        path.write_bytes(whole)
    FeatureStore.open(store)


def test_without_verification_only_damage_to_the_header_is_seen(store: Path) -> None:
    shard = sorted(store.glob("shard-*"))[0]
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    opened = FeatureStore.open(store, verify=False)
    with pytest.raises(InputCorrupt, match=shard.name):
        opened.get([opened.ids_of(0)[0].decode()])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_broken_description_is_named(store: Path, text: str) -> None:
    (store / "store.json").write_text(text)
    with pytest.raises(InputCorrupt, match=r"store\.json"):
        FeatureStore.open(store)


def test_missing_files_are_named(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="nowhere"):
        FeatureStore.open(tmp_path / "nowhere")
    sorted(store.glob("shard-*"))[3].unlink()
    with pytest.raises(InputCorrupt, match="shard-00003"):
        FeatureStore.open(store)
