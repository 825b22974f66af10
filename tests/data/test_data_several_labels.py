"""Tables that give an image several labels: refused, with what to do; one finding against the rest is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from desk import Desk
from ingest_workspace import CARD, Workspace, refused

from clinprompt.data.load import load_card

SPLIT = {"rule": "stratified", "fractions": {"train": 0.5, "val": 0.25, "test": 0.25}}
FINDINGS = {"Edema": [1, 0, 1, 0] * 4, "Effusion": [1.0, None, -1.0, 0.0] * 4, "Mass": [True, False] * 8}


def table(place: Workspace, **columns: Any) -> None:
    for i in range(16):
        place.image(f"{i}.png")
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(16)], "age": range(16)} | columns)
    frame.to_csv(place.data / "manifest.csv", index=False)


def test_a_column_for_each_finding_is_no_label(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    table(place, **FINDINGS)
    place.card(split=SPLIT, reader={"kind": "table"})
    refused(
        place,
        capsys,
        64,
        "manifest.csv: there is no column 'label'; the columns are path, age, Edema, Effusion, Mass.",
        " Edema, Effusion, Mass say yes or no each: where they are findings, of which an image may have several",
        "reader.label: Edema takes that finding (1) against the rest (0).",
    )


def test_one_finding_against_the_rest_is_a_dataset(place: Workspace) -> None:
    table(place, **FINDINGS)
    place.card(split=SPLIT, reader={"kind": "table", "label": "Edema"})
    assert place.ingest() == 0
    assert place.manifest()["label"].value_counts().to_dict() == {"glioma": 8, "none": 8}


@pytest.mark.parametrize("cell", ["glioma|Mass", "1;Mass", "glioma, none", "['glioma', 'none']"])
def test_several_labels_in_a_cell_are_refused(place: Workspace, capsys: pytest.CaptureFixture[str], cell: str) -> None:
    table(place, label=["glioma", "none", cell, "none"] * 4)
    place.card(split=SPLIT, reader={"kind": "table"})
    refused(place, capsys, 65, f"manifest.csv row 4: {cell!r} is several labels, and an image has one class here")


def test_a_class_with_a_comma_in_its_name_is_one_label(place: Workspace) -> None:
    table(place, label=["carcinoma, ductal", "none"] * 8)
    classes = [CARD["classes"][0] | {"aliases": ["Carcinoma, ductal", "ductal"]}, CARD["classes"][1]]
    place.card(split=SPLIT, reader={"kind": "table"}, classes=classes)
    assert place.ingest() == 0


def listing(desk: Desk, **columns: Any) -> None:
    desk.draw(*(f"{i}.png" for i in range(24)))
    frame = pd.DataFrame({"image": [f"{i}.png" for i in range(24)]} | columns)
    frame.to_csv(desk.images / "list.csv", index=False)


def test_data_new_asks_for_one_of_the_findings(desk: Desk, asked: Callable[..., None]) -> None:
    listing(desk, Edema=[0, 1] * 12, Mass=[1, 0, 0] * 8)
    asked("Edema, Mass say yes or no each", "--label Edema takes that finding", options=("--table", "list.csv"))
    assert desk.new("--table", "list.csv", "--label", "Mass") == 0
    assert load_card(Path("datasets/mine.yaml")).class_ids == ["0", "1"]


@pytest.mark.parametrize("column", ["Finding Labels", "label"])
def test_data_new_sees_several_labels_in_a_cell(desk: Desk, asked: Callable[..., None], column: str) -> None:
    cells = ["Mass", "Edema", "Mass|Edema", "No Finding", "Edema|Pneumonia", "Mass"] * 4
    listing(desk, **{column: cells})
    asked(f"the column {column!r} holds several labels in 8 of 24 rows, as 'Mass|Edema'", "say --label COLUMN")
