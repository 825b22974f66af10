"""Ingest through its component: manifests of every kind of reader."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ingest_workspace import ROOT, Workspace, refused
from PIL import Image

from clinprompt.data.ingest import ingest
from clinprompt.data.load import load_card
from clinprompt.data.patient_ids import patient_key
from clinprompt.files import sha256_file, sha256_folder


def test_split_folders_make_a_manifest_and_content_addressed_copies(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    place.published()
    place.image("train/glioma/9.PNG")
    for junk in ("train/glioma/Thumbs.db", "train/none/.DS_Store", "train/none/._0.png", "notes.txt"):
        (place.data / junk).write_text("junk")
    assert place.ingest() == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 19
    assert facts["classes"] == {"glioma": 10, "none": 9}
    assert facts["splits"] == {"train": 7, "val": 6, "test": 6}
    assert facts["skipped"] == {".db": 1, ".txt": 1, "hidden": 2}
    frame = place.manifest()
    assert frame["path"].tolist()[0] == "test/glioma/0.png"
    assert frame["patient"].isna().all()
    for row in frame.itertuples():
        copy = place.folder / "out" / "images" / row.file
        assert sha256_file(copy) == row.id == sha256_file(place.data / row.path)
        assert row.file == f"{row.id[:2]}/{row.id}.png"
    files = [p for p in (place.folder / "out" / "images").rglob("*") if p.is_file()]
    assert len(files) == frame["id"].nunique()
    assert (place.folder / "data" / "toy").resolve() == place.data.resolve()


def test_running_again_gives_the_same_bytes_and_another_root_is_linked_anew(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.published()
    assert place.ingest() == 0
    first = sha256_folder(place.folder / "out")
    place.root.rename(place.folder / "elsewhere")
    monkeypatch.setenv("CLINPROMPT_DATA", str(place.folder / "elsewhere"))
    assert place.ingest() == 0
    assert sha256_folder(place.folder / "out") == first


def test_publishers_folder_names_aliases_and_a_val_split_from_train(place: Workspace) -> None:
    place.card(
        reader={"kind": "folder", "splits": {"train": "Fold A", "test": "Fold B"}},
        split={"rule": "given", "val_from_train": 0.25},
    )
    for i in range(8):
        place.image(f"Fold A/Glioma Tumor/{i}.png")
        place.image(f"Fold A/NONE/{i}.png")
        place.image(f"Fold B/glioma/{i}.png")
        place.image(f"Fold B/none/{i}.png")
    place.image("Fold A/NONE/copy.png", seed=7)
    place.image("Fold A/NONE/copy2.png", seed=7)
    assert place.ingest() == 0
    frame = place.manifest()
    assert set(frame["split"][frame["path"].str.startswith("Fold B")]) == {"test"}
    assert frame["split"].value_counts()["val"] in (4, 5)
    copies = frame[frame["path"].str.contains("copy")]
    assert copies["id"].nunique() == copies["split"].nunique() == 1


def test_class_folders_alone_are_shared_out(place: Workspace) -> None:
    place.card(split={"rule": "stratified"})
    for label in ("glioma", "none"):
        for i in range(20):
            place.image(f"{label}/{i}.png")
    assert place.ingest() == 0
    assert place.manifest().groupby(["label", "split"]).size().min() >= 2


def test_byte_identical_files_are_rows_with_one_id_and_one_copy(place: Workspace) -> None:
    place.published()
    source = place.data / "train/none/0.png"
    shutil.copy(source, place.data / "test/glioma/a copy.tif")
    assert place.ingest() == 0
    frame = place.manifest()
    twins = frame[frame["id"] == sha256_file(source)]
    assert twins["path"].tolist() == ["test/glioma/a copy.tif", "train/none/0.png"]
    assert twins["file"].nunique() == 1
    assert (place.folder / "out" / "images" / twins["file"].iloc[0]).read_bytes() == source.read_bytes()


def test_corrupt_and_empty_images_are_passed_on(place: Workspace) -> None:
    place.published()
    (place.data / "train/none/empty.png").touch()
    (place.data / "train/none/bad.jpeg").write_bytes(b"not an image")
    assert place.ingest() == 0
    frame = place.manifest().set_index("path")
    assert frame.loc["train/none/bad.jpeg", "file"].endswith(".jpg")
    assert (place.folder / "out" / "images" / frame.loc["train/none/empty.png", "file"]).stat().st_size == 0


TABLE = {
    "reader": {"kind": "table", "path": "file", "label": "dx", "split": "fold", "splits": {"train": "1", "test": "2"}},
    "split": {"rule": "given", "val_from_train": 0.3},
    "metadata": {"patient": "pid", "site": "hospital", "sex": "sex", "age": "age", "extra": ["scanner"]},
}


def make_table(place: Workspace, rows: int = 12) -> pd.DataFrame:
    place.card(**TABLE)
    for i in range(rows):
        place.image(f"img/{i}.png")
    return pd.DataFrame(
        {
            "scanner": ["S1", ""] * (rows // 2),
            "file": [f"img/{i}.png" for i in range(rows)],
            "dx": ["0", "Glioma Tumor"] * (rows // 2),
            "fold": ["1", "1", "1", "2"] * (rows // 4),
            "pid": [f"P{i // 2}" for i in range(rows)],
            "hospital": ["A", "B"] * (rows // 2),
            "sex": ["F", "M", "", "F"] * (rows // 4),
            "age": ["61", "", "40.5", "7"] * (rows // 4),
        }
    )


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_brings_labels_splits_and_metadata(place: Workspace, form: str) -> None:
    frame = make_table(place)
    if form == "csv":
        frame.to_csv(place.data / "manifest.csv", index=False, encoding="utf-8-sig")
    else:
        place.card(**(TABLE | {"reader": TABLE["reader"] | {"file": "all.parquet"}}))
        typed = {"dx": frame["dx"].replace({"Glioma Tumor": "1"}).astype(int), "fold": frame["fold"].astype(int)}
        frame.assign(age=pd.to_numeric(frame["age"]), **typed).to_parquet(place.data / "all.parquet")
    assert place.ingest() == 0
    out = place.manifest().set_index("path")
    assert out.loc["img/1.png", "label"] == "glioma"
    assert out.loc["img/3.png", "split"] == "test"
    assert out.loc["img/2.png", "patient"] == patient_key().pseudonym("toy", "P1") == out.loc["img/3.png", "patient"]
    assert len(out.loc["img/2.png", "patient"]) == 16
    assert out.loc["img/2.png", "age"] == 40.5
    assert np.isnan(out.loc["img/1.png", "age"])
    assert out.loc["img/0.png", ["site", "sex", "scanner"]].tolist() == ["A", "F", "S1"]
    assert out.loc["img/1.png", ["scanner"]].isna().all()
    assert out.loc["img/2.png", ["sex"]].isna().all()


@pytest.mark.parametrize(
    ("cell", "value", "answer"),
    [
        ((3, "dx"), "cyst", (65, "manifest.csv row 5", "'cyst' is no class", "glioma, none", "aliases")),
        ((3, "dx"), "", (65, "manifest.csv row 5", "column 'dx' is empty")),
        ((0, "file"), "../../secret.png", (65, "manifest.csv row 2", "'../../secret.png' leads out of")),
        ((0, "file"), "/etc/passwd.png", (65, "row 2", "leads out of")),
        ((0, "file"), "img/none.png", (66, "1 of 12 files", "do not exist", "row 2 'img/none.png'")),
        ((0, "file"), "img", (65, "row 2", "not a regular file")),
        ((0, "file"), "manifest.csv", (65, "row 2", "no image file")),
        ((5, "file"), "./img//0.png", (65, "row 7", "'img/0.png' stands in manifest.csv row 2")),
        ((5, "fold"), "3", (65, "row 7", "'3' is no split", "reader.splits")),
        ((5, "fold"), "", (65, "img/5.png", "does not tell this image's split")),
        ((5, "age"), "old", (65, "row 7", "'old' is not a number of years")),
    ],
)
def test_a_bad_cell_is_named_by_file_and_row(
    place: Workspace, capsys: pytest.CaptureFixture[str], cell: tuple[int, str], value: str, answer: Any
) -> None:
    frame = make_table(place)
    frame.loc[cell] = value
    frame.to_csv(place.data / "manifest.csv", index=False)
    refused(place, capsys, *answer)


def test_a_missing_column_and_a_missing_table(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    frame = make_table(place)
    refused(place, capsys, 66, "'manifest.csv' does not exist")
    frame.drop(columns="hospital").to_csv(place.data / "manifest.csv", index=False)
    refused(place, capsys, 64, "manifest.csv: there is no column 'hospital'", "scanner, file, dx")
    place.table('file,dx\n"a')
    refused(place, capsys, 67, "manifest.csv is not a readable table")


def test_the_root_of_the_params_an_absolute_path_and_a_real_folder(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.published()
    monkeypatch.delenv("CLINPROMPT_DATA")
    params = place.folder / "params.yaml"
    params.write_text(params.read_text().replace("root: null", f"root: {place.root}"))
    assert place.ingest() == 0
    source = place.folder / "data" / "toy"
    source.unlink()
    shutil.copy(ROOT / "params.yaml", params)
    place.card(path=str(place.data))
    assert place.ingest() == 0
    source.unlink()
    place.card()
    place.data.rename(source)
    assert place.ingest() == 0
    assert not source.is_symlink()


class Phantom:
    """Stands in for the generator, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def write_phantom(self, folder: Path, images: int = 12, seed: int = 0) -> None:
        self.calls += 1
        rng = np.random.default_rng(seed)
        rows = ["path,label,split,pid"]
        for i in range(images):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
            rows.append(f"{i}.png,{['glioma', 'none'][i % 2]},{['train', 'val', 'test'][i % 3]},P{i}")
        (folder / "manifest.csv").write_text("\n".join(rows))


@pytest.fixture
def phantom(monkeypatch: pytest.MonkeyPatch) -> Phantom:
    generator = Phantom()
    module = ModuleType("clinprompt.demo.phantom")
    module.write_phantom = generator.write_phantom  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clinprompt.demo.phantom", module)
    return generator


def test_a_phantom_is_generated_once_per_options(place: Workspace, phantom: Phantom) -> None:
    def card(**options: Any) -> None:
        place.card(reader={"kind": "phantom", **options}, metadata={"patient": "pid"})

    card(seed=1)
    assert place.ingest() == 0
    first = sha256_folder(place.folder / "out")
    assert place.ingest() == 0
    assert phantom.calls == 1
    assert sha256_folder(place.folder / "out") == first
    card(seed=2)
    assert place.ingest() == 0
    assert phantom.calls == 2
    assert sha256_folder(place.folder / "out") != first
    (place.folder / "data" / "toy" / ".phantom.json").unlink()
    card(seed=3)
    assert place.ingest() == 0
    assert phantom.calls == 2, "a folder without a stamp is the user's own"


def test_an_unknown_option_of_the_phantom_is_named(
    place: Workspace, phantom: Phantom, capsys: pytest.CaptureFixture[str]
) -> None:
    place.card(reader={"kind": "phantom", "sede": 1})
    refused(place, capsys, 64, "reader.sede: the phantom has no such option")
    assert not (place.folder / "data" / "toy").exists()


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("brain-tumor-detection", {"train": 2441, "val": 429, "test": 394}),
        ("brain-tumor-mri", {"train": 2445, "val": 425, "test": 394}),
        ("pneumoniamnist", {"train": 3882, "val": 524, "test": 624}),
    ],
)
def test_the_real_datasets(real_data: Path, tmp_path: Path, name: str, splits: dict[str, int]) -> None:
    card = load_card(ROOT / "datasets" / f"{name}.yaml")
    facts = ingest(card, real_data / card.location, tmp_path / "manifest.parquet", tmp_path / "images")
    assert facts.splits == splits
