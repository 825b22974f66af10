"""Scans and exams of subjects, matched by their dates; and the cards that are read so, each with a miniature."""

import logging
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest
from drawn_volumes import drawn, nifti
from hypothesis import given
from hypothesis import strategies as st
from ingest_workspace import ROOT, Workspace, refused

from clinprompt.data.layouts.matching import match_exams

DAY = date(2020, 1, 1)


def days(*numbers: int) -> list[date]:
    return [DAY + timedelta(number) for number in numbers]


@pytest.mark.parametrize(
    ("scans", "exams", "expected", "ties"),
    [
        ([0, 200], [10, 190], {0: 0, 1: 1}, 0),
        ([0], [121], {}, 0),
        ([0], [-120], {0: 0}, 0),
        ([0, 10], [8], {1: 0}, 0),  # the nearer scan gets it
        ([0, 10], [8, 30], {0: 1, 1: 0}, 0),  # and the other the next
        ([0], [5, -5], {0: 1}, 1),  # of two equally near, the earlier
    ],
)
def test_scans_get_the_nearest_exam_each_once(
    scans: list[int], exams: list[int], expected: dict[int, int], ties: int
) -> None:
    found = match_exams(days(*scans), days(*exams), 120)
    assert (found.exam_of, found.ties) == (expected, ties)


@given(st.lists(st.integers(0, 900), max_size=6), st.lists(st.integers(0, 900), max_size=6))
def test_no_exam_is_used_twice_and_none_is_too_far(scans: list[int], exams: list[int]) -> None:
    found = match_exams(days(*scans), days(*exams), 120).exam_of
    assert len(set(found.values())) == len(found)
    assert all(abs(scans[scan] - exams[exam]) <= 120 for scan, exam in found.items())
    free = [n for n in range(len(exams)) if n not in found.values()]
    waiting = [n for n in range(len(scans)) if n not in found]
    assert not any(abs(scans[scan] - exams[exam]) <= 120 for scan in waiting for exam in free)


def write(place: Workspace, subjects: int, path: Callable[[int], str]) -> list[str]:
    """A drawn scan of each subject; their paths."""
    for number in range(subjects):
        file = place.data / path(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(nifti(drawn((16, 18, 20), number)))
    return [path(number) for number in range(subjects)]


def tables(place: Workspace, exam_columns: dict[str, str], **exam: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of 24 subjects: one scan, and exams 20 days and a year later, the second with nothing but a date."""
    paths = write(place, 24, lambda number: f"scans/{number}.nii")
    names = [f"s{number}" for number in range(24)]
    scans = pd.DataFrame({"path": paths, "subject": names, "date": "2020-01-01"})
    first = pd.DataFrame({"subject": names, "date": "2020-01-21", "diagnosis": ["NC", "MCI", "AD"] * 8, **exam})
    exams = pd.concat([first, first[["subject"]].assign(date="2021-01-01")], ignore_index=True)
    return scans, exams.rename(columns=exam_columns)


def ingested(place: Workspace, scans: pd.DataFrame, exams: pd.DataFrame, name: str = "exams.csv") -> int:
    scans.to_csv(place.data / "scans.csv", index=False)
    exams.to_csv(place.data / name, index=False)
    return place.ingest()


VISITS = {
    "reader": {"kind": "visits"},
    "split": {"rule": "stratified"},
    "classes": [{"id": c, "name": c, "phrase": f"a brain with {c}"} for c in ("NC", "MCI", "AD")],
    "metadata": {"age": "age", "extra": ["MMSE"]},
}


def test_what_has_no_partner_is_counted_in_one_sentence(place: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    place.card(**VISITS)
    scans, exams = tables(place, {}, MMSE=28, age=70)
    exams = exams.astype(object)
    exams.loc[3, "MMSE"] = None
    exams.loc[len(exams)] = ["nobody", "2020-01-01", "NC", 30, 60]
    scans.loc[4, "date"] = "2019-01-01"
    exams.loc[len(exams)] = ["s5", "2019-12-12", "MCI", 27, 70]
    with caplog.at_level(logging.WARNING):
        assert ingested(place, scans, exams) == 0
    frame = place.manifest().set_index("path")
    assert len(frame) == 23
    assert frame.loc["scans/3.nii", "MMSE"] is None or pd.isna(frame.loc["scans/3.nii", "MMSE"])
    assert (frame.drop("scans/3.nii")["MMSE"].isin(["28", "27"])).all()
    assert frame.loc["scans/5.nii", "MMSE"] == "27"
    assert (
        "scans without an exam within 120 days: 1, exams without a scan: 26, subjects without a scan: 1, "
        "scans with two exams equally near, of which the earlier is taken: 1."
    ) in caplog.text


def test_the_label_is_the_subjects_first_diagnosis_or_the_visits(place: Workspace) -> None:
    scans, exams = tables(place, {}, MMSE=28, age=70)
    later = write(place, 1, lambda _: "scans/later.nii")
    scans.loc[len(scans)] = [*later, "s0", "2021-01-02"]
    (place.data / later[0]).write_bytes(nifti(drawn((16, 18, 20), 77)))
    exams.loc[24, "diagnosis"] = "AD"
    for label, expected in (("baseline", "NC"), ("visit", "AD")):
        place.card(**VISITS | {"reader": {"kind": "visits", "label": label}})
        assert ingested(place, scans, exams) == 0
        frame = place.manifest().set_index("path")
        assert (frame.loc["scans/0.nii", "label"], frame.loc["scans/later.nii", "label"]) == ("NC", expected)
        assert frame["patient"].nunique() == 24


@pytest.mark.parametrize(
    ("column", "value", "part", "code"),
    [
        ("date", "soon", "scans.csv row 2: 'soon' in column 'date' is no date; write it as 2024-05-31.", 65),
        ("date", "", "scans.csv row 2: the cell in column 'date' is empty", 65),
        ("path", "scans/none.nii", "1 of 24 files do not exist", 66),
    ],
)
def test_a_bad_row_stops_ingest(
    place: Workspace, capsys: pytest.CaptureFixture[str], column: str, value: str, part: str, code: int
) -> None:
    place.card(**VISITS)
    scans, exams = tables(place, {}, MMSE=28, age=70)
    scans.loc[0, column] = value
    scans.to_csv(place.data / "scans.csv", index=False)
    exams.to_csv(place.data / "exams.csv", index=False)
    refused(place, capsys, code, part)


def real_card(place: Workspace, name: str) -> None:
    text = (ROOT / "datasets" / f"{name}.yaml").read_text()
    (place.folder / "toy.yaml").write_text(text.replace(f"name: {name}\n", "name: toy\n", 1))


def test_adnis_card_reads_a_miniature(place: Workspace) -> None:
    real_card(place, "adni")
    volumes = dict.fromkeys(("Hippocampus", "Ventricles", "WholeBrain", "Entorhinal", "Fusiform", "MidTemp"), 5000)
    names = {"subject": "PTID", "date": "EXAMDATE", "diagnosis": "DX"}
    scans, exams = tables(place, names, AGE=71.3, PTGENDER="Female", MMSE=29, **volumes)
    exams["DX"] = exams["DX"].map({"NC": "CN", "MCI": "MCI", "AD": "Dementia"})
    assert ingested(place, scans, exams, "ADNIMERGE.csv") == 0
    row = place.manifest().iloc[0]
    assert (row["sex"], row["age"], row["MMSE"], row["Hippocampus"]) == ("F", 71.3, "29", "5000")


def test_a_card_may_ask_for_a_fold_and_the_manifest_tells_each_scans(place: Workspace) -> None:
    place.card(**VISITS | {"split": {"rule": "stratified", "folds": 3, "fold": 1}})
    assert ingested(place, *tables(place, {}, MMSE=28, age=70)) == 0
    frame = place.manifest()
    assert list(frame.columns)[-2:] == ["MMSE", "fold"]
    told = {(split, None if pd.isna(fold) else fold) for split, fold in zip(frame["split"], frame["fold"], strict=True)}
    assert told == {("test", None), ("val", "1"), ("train", "0"), ("train", "2")}
    assert frame.groupby("fold")["label"].nunique().tolist() == [3, 3, 3]


def test_aibls_card_reads_a_miniature(place: Workspace) -> None:
    real_card(place, "aibl")
    assert ingested(place, *tables(place, {}, MMSE=29, age=71, sex="M")) == 0
    assert len(place.manifest()) == 24


def test_oasis_2s_card_reads_a_miniature(place: Workspace) -> None:
    real_card(place, "oasis2")
    write(place, 24, lambda number: f"images/OAS2_{number:04}_MR1.nii")
    for file in (place.data / "images").iterdir():
        shutil.move(file, f"{file}.gz")  # told by its bytes
    groups = ["Nondemented", "Demented", "Converted"] * 8
    ids = [f"OAS2_{number:04}" for number in range(24)]
    frame = pd.DataFrame({"Subject ID": ids, "MRI ID": [f"{one}_MR1" for one in ids], "Group": groups, "M/F": "F"})
    frame = frame.assign(Age=80, MMSE=27, CDR=0.5, eTIV=1500, nWBV=0.7)
    frame.to_csv(place.data / "oasis_longitudinal.csv", index=False)
    assert place.ingest() == 0
    assert set(place.manifest()["label"]) == {"NC", "AD"}
