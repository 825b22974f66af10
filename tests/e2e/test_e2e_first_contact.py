"""Five folders as people have them go from `data.new` to a decision, with no edit but of the classes' names."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

SKIN = {"bcc": "carcinoma", "mel": "melanoma", "nv": "nevus"}
NAMES = {  # by dataset and class: what a clinician calls it
    "breast": {"benign": "benign tumour", "malignant": "malignant tumour", "normal": "normal breast"},
    "tissue": {"colon_aca": "colon cancer", "lung_aca": "lung cancer", "lung_n": "normal lung"},
    "brain": {"glioma": "glioma", "healthy": "no tumour"},
    "skin": SKIN,
    "chest": {"COVID19": "COVID-19", "NORMAL": "no finding", "PNEUMONIA": "pneumonia"},
}
OPTIONS = {"tissue": ("--folders", "*/{class}")}  # the one question that is left to the user


class Pen:
    """Draws pictures, of a class's own brightness and none like another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drawn = 0

    def draw(self, paths: Iterable[str], brightness: int) -> None:
        for path in paths:
            self.drawn += 1
            rng = np.random.default_rng(self.drawn)
            coarse = rng.integers(0, 60, (8, 8)) + brightness
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(coarse.astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC).save(file)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The five folders, each with what such a folder has beside its images."""
    folder = tmp_path_factory.mktemp("folders")
    pen = Pen(folder)
    for number, label in enumerate(NAMES["breast"]):
        names = [f"breast/{label}/{label} ({i})" for i in range(1, 46)]
        pen.draw((f"{name}{mask}.png" for name in names for mask in ("", "_mask")), 20 + 80 * number)
    for number, label in enumerate(NAMES["tissue"]):
        part = f"{label.split('_')[0]}_image_sets"
        pen.draw((f"tissue/{part}/{label}/{label}{i}.jpeg" for i in range(45)), 20 + 80 * number)
    for number, label in enumerate(NAMES["brain"]):
        pen.draw((f"brain/{label}/{label[0]}{p:03d}/{i}.png" for p in range(18) for i in range(3)), 20 + 80 * number)
    rows = []
    for number, label in enumerate(SKIN):
        for i in range(48):
            image = f"ISIC_{number * 100 + i:07d}"
            pen.draw([f"skin/HAM10000_images_part_{1 + i % 2}/{image}.jpg"], 20 + 80 * number)
            rows.append((f"HAM_{number}{i // 2:05d}", image, label, "histo", "55.0", ("male", "female")[i // 2 % 2]))
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "skin/HAM10000_metadata.csv", index=False)
    for number, label in enumerate(NAMES["chest"]):
        for split, n in (("train", 40), ("test", 10)):
            pen.draw((f"chest/Data/{split}/{label}/{label}({i}).jpg" for i in range(n)), 20 + 80 * number)
    (folder / "chest/Data/train/NORMAL/again.jpg").write_bytes(
        (folder / "chest/Data/test/NORMAL/NORMAL(3).jpg").read_bytes()
    )
    (folder / "chest/README.txt").write_text("Three classes.")
    return folder


@pytest.fixture(scope="module")
def decided(make_workspace: Callable[[Path], Any], folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workspace in which the five datasets have come to a decision in one `dvc repro`."""
    workspace = make_workspace(tmp_path_factory.mktemp("first") / "contact")
    for name, classes in NAMES.items():
        command = ("python", "-m", "clinprompt.data.new", name, str(folders / name))
        made = workspace.run(*command, *OPTIONS.get(name, ()))
        assert made.returncode == 0, made.stderr

        def name_classes(card: Any, names: dict[str, str] = classes) -> None:
            for info in card["classes"]:
                info["name"] = names[info["id"]]

        workspace.edit(f"datasets/{name}.yaml", name_classes)
    workspace.edit("params.yaml", lambda params: params.update(datasets=list(NAMES)))
    workspace.edit("params.yaml", lambda params: params["candidates"].update(methods=["linear_probe"]))
    done = workspace.repro("gate", "report@chest")
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_as_people_have_it_comes_to_a_decision(decided: Any, name: str) -> None:
    run = decided.folder / "runs" / name
    assert '"verdict": "accepted"' in (run / "gate/decision.json").read_text()
    frame = pd.read_parquet(run / "validate/manifest.parquet")
    assert set(frame["label"]) == set(NAMES[name])
    assert (pd.crosstab(frame["label"], frame["split"]) >= 5).all().all()
    if name in {"brain", "skin"}:
        assert frame.groupby("patient")["split"].nunique().max() == 1


def test_the_report_claims_no_check_that_was_not_made(decided: Any) -> None:
    page = (decided.folder / "runs/chest/report.html").read_text()
    for said in (
        "Not checked: the card names no patients.",
        "Not checked: age is known of no image.",
        "Near-duplicates are not looked for beyond",
        "1 image dropped",
        "the intervals are over images",
    ):
        assert said in page
    assert "over patients, each left out" not in page
