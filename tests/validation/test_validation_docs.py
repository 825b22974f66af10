"""The Data Docs page needs no network, shows no file's name, and what tables say is text in it."""

import re

import pandas as pd
import pytest
from tiny_dataset import Dataset, encode, picture


def page(dataset: Dataset) -> str:
    dataset.validate()
    return (dataset.folder / "validate/evidence/docs/index.html").read_text()


def test_the_page_names_no_address_and_runs_no_script(dataset: Dataset) -> None:
    dataset.put("train/glioma/bad.png", b"bad")
    shares = {"values": ["glioma", "none"], "weights": [0.9, 0.1]}  # is drawn as a chart
    drawn = {"column": "label", "partition_object": shares, "threshold": 0.1}
    dataset.card["expectations"] = [{"type": "ExpectColumnKLDivergenceToBeLessThan", "kwargs": drawn}]
    html = page(dataset)
    assert "ExpectColumnKLDivergence" in html
    assert "//" not in html
    assert not re.search(r"<script|<link|<img|@import|url\(", html)


def test_the_page_shows_the_verdict_every_check_and_the_expectations(dataset: Dataset) -> None:
    dataset.put("train/glioma/bad.png", b"bad")
    html = page(dataset)
    assert "rejected" in html
    for check in dataset.verdict()["checks"]:
        assert check["name"] in html
    assert "Every image file can be read to its end" in html
    assert "1 unexpected values found" in html


def test_markup_in_a_table_stays_text(dataset: Dataset) -> None:
    dataset.put("train/glioma/a.png", encode(picture(700)), sex="<b onclick=x>")
    html = page(dataset)
    assert "&lt;b onclick=x&gt;" in html
    assert "<b onclick" not in html


ON_PATHS: list[tuple[str, dict[str, object]]] = [
    ("ExpectColumnValuesToMatchRegex", {"column": "path", "regex": "^never$"}),
    ("ExpectColumnValuesToNotMatchRegex", {"column": "path", "regex": "."}),
    ("ExpectColumnDistinctValuesToBeInSet", {"column": "path", "value_set": ["x"]}),
    ("ExpectColumnMostCommonValueToBeInSet", {"column": "path", "value_set": ["x"]}),
    ("ExpectColumnValueLengthsToBeBetween", {"column": "path", "max_value": 1}),
    ("ExpectColumnPairValuesToBeEqual", {"column_A": "path", "column_B": "id"}),
    ("ExpectCompoundColumnsToBeUnique", {"column_list": ["path", "id"]}),
]


def test_nothing_that_validate_writes_or_says_shows_a_file_name(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset.put("train/glioma/MRN-1.png", b"bad")
    dataset.put("train/glioma/MRN-2.png", encode(picture(700)), patient="0123456789abcdef")
    dataset.put("test/none/MRN-3.png", encode(picture(700)), "test", "none", age=300.0)
    dataset.put("val/none/MRN-4.png", encode(picture(701)), "val", "none", patient="0123456789abcdef", sex="?")
    dataset.put("train/none/MRN-5.jpg", encode(picture(701), "jpeg"), "train", "none")
    dataset.put("train/none/MRN-6.png", encode(picture(702)), "train", "none")
    dataset.put("train/none/MRN-7.png", encode(picture(702)), "train", "none")
    dataset.card["expectations"] = [{"type": kind, "kwargs": kwargs} for kind, kwargs in ON_PATHS]
    dataset.card["on_leak"] = "drop_from_train"
    for on_leak in ("fail", "drop_from_train"):
        dataset.card["on_leak"] = on_leak
        assert dataset.validate() == 65
        shown = [*capsys.readouterr()]
        for file in (dataset.folder / "validate" / "evidence").rglob("*.*"):
            tabular = file.suffix == ".parquet"
            shown.append(pd.read_parquet(file).to_csv() if tabular else file.read_text())
        assert len(shown) == 2 + 4
        for text in shown:
            assert "MRN" not in text
            assert "glioma/0.png" not in text
    checks = {check["name"]: check["passed"] for check in dataset.verdict()["checks"]}
    assert [checks[f"card {n}: {kind}"] for n, (kind, _) in enumerate(ON_PATHS)] == [*[False] * 6, True]
    assert len(dataset.verdict()["dropped"]) == 2
