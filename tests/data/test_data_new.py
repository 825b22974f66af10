"""`python -m clinprompt.data.new`: the card that it writes is ingested without an edit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinprompt.data.ingest import ingest
from clinprompt.data.load import load_card
from clinprompt.data.new import main
from registry.lineage import summary


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my images"


def fill(folder: Path, n: int = 10) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(str(folder)))
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")


@pytest.mark.parametrize(
    ("splits", "rule", "fraction"),
    [(["Training", "Testing"], "given", 0.15), (["train", "valid", "test"], "given", None), ([""], "stratified", None)],
)
def test_the_card_is_ingested_as_it_is(
    root: Path, capsys: pytest.CaptureFixture[str], splits: list[str], rule: str, fraction: float | None
) -> None:
    for split in splits:
        for label in ("Glioma tumor", "no_tumor", "1 + 1", "1 1"):
            fill(root / split / label)
    assert main(["mine", str(root), "--title", "My images", "--modality", "MRI"]) == 0
    told = capsys.readouterr().out
    assert f"4 classes, {40 * len(splits)} images" in told
    assert "datasets: [brain-phantom, mine]" in told
    card = load_card(Path("datasets/mine.yaml"))
    assert (card.title, card.split.rule, card.split.val_from_train) == ("My images", rule, fraction)
    glioma = card.classes[card.class_ids.index("Glioma_tumor")]
    assert (glioma.name, glioma.phrase) == ("glioma tumor", "MRI showing glioma tumor")
    assert ingest(card, Path(card.location), Path("m.parquet"), Path("images")).images == 40 * len(splits)


def test_it_never_overwrites_a_card(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(root / "a")
    fill(root / "b")
    assert main(["mine", str(root)]) == 0
    before = Path("datasets/mine.yaml").read_bytes()
    assert main(["mine", str(root), "--title", "other"]) == 64
    assert "exists already" in capsys.readouterr().err
    assert Path("datasets/mine.yaml").read_bytes() == before


def test_what_is_no_dataset_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mine", str(root)]) == 66
    fill(root / "a")
    assert main(["mine", str(root)]) == 65
    assert "holds 1 class folder with images" in capsys.readouterr().err
    (root / "b").mkdir()
    fill(root / "c", 0)
    assert main(["bad name", str(root)]) == 64
    assert "name: " in capsys.readouterr().err
    assert not Path("datasets").exists()


def test_a_class_s_id_is_its_label_without_accents(root: Path) -> None:
    for label in ("\u00c9pilepsie", "na\u00efve", "naive"):
        fill(root / label)
    assert main(["mine", str(root)]) == 0
    card = load_card(Path("datasets/mine.yaml"))
    assert sorted(card.class_ids) == ["Epilepsie", "naive", "naive_2"]
    assert (card.class_of("na\u00efve"), card.class_of("\u00e9pilepsie")) == ("naive_2", "Epilepsie")
    # What the card leaves open is not told of the registered model.
    assert summary(card).startswith("mine: classifies one medical image into ")
