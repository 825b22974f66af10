"""validate tells what headers of DICOM files gave away: fields that name patients, text burned into the pixels."""

import pytest
from tiny_dataset import Dataset, encode, picture

FIELDS = "PatientName, PatientID"


@pytest.fixture
def films(dataset: Dataset) -> Dataset:
    """A healthy dataset, all but one image of DICOM files that name nobody."""
    for path in list(dataset.rows)[1:]:
        dataset.rows[path] |= {"identifying_fields": None, "burned_in_annotation": "NO", "pixel_spacing": 0.5}
    return dataset


def checks(dataset: Dataset) -> dict[str, tuple[bool, str]]:
    return {check["name"]: (check["passed"], check["message"]) for check in dataset.verdict()["checks"]}


def test_headers_that_name_nobody_pass(films: Dataset) -> None:
    assert films.validate() == 0
    assert films.failed("warning") == {}
    found = checks(films)
    assert found["identifying headers"][0] is True
    assert "Not checked" not in found["identifying headers"][1]
    assert found["burned-in text"] == (
        True,
        "No DICOM header says that text is burned into the pixels, which the copies and the report's pictures show.",
    )


def test_fields_are_told_by_name_and_flag_no_image_and_text_does(films: Dataset) -> None:
    first, second, third, *_ = list(films.rows)[1:]
    films.rows[first] |= {"identifying_fields": FIELDS, "burned_in_annotation": "not told"}
    films.rows[second] |= {"identifying_fields": "PatientID"}
    films.rows[third] |= {"burned_in_annotation": "YES"}
    assert films.validate() == 0
    warned = films.failed("warning")
    assert set(warned) == {"identifying headers", "burned-in text"}
    assert (
        f"not so for 2 of 34 images: {films.name(first)} ({FIELDS}), {films.name(second)} (PatientID)"
        in (warned["identifying headers"])
    )
    assert (
        f"not so for 1 of 34 images: {films.name(third)} (YES). 1 of 33 DICOM headers do not tell."
        in (warned["burned-in text"])
    )
    verdict = films.verdict()
    assert [entry["checks"] for entry in verdict["flagged"]] == [["burned-in text"]]
    assert FIELDS in (films.folder / "validate" / "evidence" / "docs" / "index.html").read_text()


def test_where_there_is_no_dicom_nothing_is_said_of_headers(dataset: Dataset) -> None:
    dataset.put("more.png", encode(picture(99)))
    assert dataset.validate() == 0
    assert not {"identifying headers", "burned-in text"} & set(checks(dataset))
