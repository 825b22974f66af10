"""The Data Docs page needs no network, and file names in it are text."""

import re

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


def test_markup_in_a_file_name_stays_text(dataset: Dataset) -> None:
    dataset.put("train/glioma/<b onclick=x>.png", encode(picture(700)))
    dataset.put("test/glioma/<b onclick=y>.png", encode(picture(700)), "test")
    html = page(dataset)
    assert "&lt;b onclick=x&gt;.png" in html
    assert "<b onclick" not in html
