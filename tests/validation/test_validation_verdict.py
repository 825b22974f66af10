"""The component: what is rejected, what is a warning, and what a user is told."""

import json
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_validation_images import BAD, GOOD_JPEG
from tiny_dataset import Dataset, encode, picture

from clinprompt.data.manifest import read_manifest
from clinprompt.files import sha256_file, sha256_folder


def last_message(capsys: pytest.CaptureFixture[str]) -> str:
    return str(json.loads(capsys.readouterr().out.splitlines()[-1])["message"])


def test_a_healthy_dataset_is_accepted(dataset: Dataset) -> None:
    assert dataset.validate() == 0
    verdict = dataset.verdict()
    assert verdict["verdict"] == "accepted"
    assert {check["name"] for check in verdict["checks"] if not check["passed"]} == {"leak: patients", "age", "sex"}
    assert not any(check["passed"] is False for check in verdict["checks"])
    assert verdict["counts"]["test"] == {"glioma": 5, "none": 5}
    assert json.loads((dataset.folder / "validate/classes.json").read_text()) == {
        "classes": ["glioma", "none"],
        "dataset": "demo",
    }
    assert sha256_file(dataset.folder / "validate/manifest.parquet") == sha256_file(dataset.folder / "manifest.parquet")


def test_the_evidence_holds_the_agreed_tables(dataset: Dataset) -> None:
    dataset.validate()
    images, pairs = (pd.read_parquet(dataset.folder / f"validate/evidence/{n}.parquet") for n in ("images", "pairs"))
    assert list(images.columns) == [
        *("id", "width", "height", "mode", "mean", "std", "min", "max", "phash", "problem", "reason"),
        *("volume_depth", "spacing_slices", "spacing_rows", "spacing_columns", "volume_view", "volume_anisotropy"),
        *("volume_orientation", "header_text"),
    ]
    assert images["id"].tolist() == sorted(set(dataset.frame()["id"]))
    assert list(pairs.columns) == [*("id_a", "id_b", "split_a", "split_b", "kind", "bits", "correlation", "same_label")]


@pytest.mark.parametrize("problem", [*BAD, "truncated"])
def test_a_bad_image_rejects_the_data_and_is_named(
    dataset: Dataset, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = BAD.get(problem, GOOD_JPEG[:-200])
    dataset.put("train/glioma/odd one.png", data)
    if problem == "decompression bomb":
        dataset.params["max_pixels"] = 1_000_000
    assert dataset.validate() == 65
    message = last_message(capsys)
    assert dataset.name("train/glioma/odd one.png") in message
    assert "python -m clinprompt.data.lookup demo DIGITS" in message
    assert len(dataset.failed()) == 1
    images = pd.read_parquet(dataset.folder / "validate/evidence/images.parquet").set_index("id")
    assert images.loc[dataset.rows["train/glioma/odd one.png"]["id"], "problem"] == problem
    assert (dataset.folder / "validate/manifest.parquet").is_file()
    assert (dataset.folder / "validate/evidence/docs/index.html").is_file()


def test_five_files_are_named_and_the_others_are_counted(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        dataset.put(f"train/none/bad{number}.png", b"not an image %d" % number, label="none")
    assert dataset.validate() == 65
    message = last_message(capsys)
    names = [dataset.name(f"train/none/bad{number}.png") for number in range(8)]
    assert f"not so for 8 of 42 images: {names[0]} (not a PNG" in message
    assert names[4] in message
    assert names[5] not in message
    assert "and 3 more" in message
    assert str(dataset.folder / "validate/evidence") in message


def test_a_class_with_too_few_images_in_a_split_is_named(dataset: Dataset) -> None:
    for number in range(2, 5):
        del dataset.rows[f"val/none/{number}.png"]
    assert dataset.validate() == 65
    expected = "Expected that the class none has at least 5 images in val; found 2."
    assert dataset.failed()["count val/none"] == expected


def test_a_label_outside_the_card_is_named(dataset: Dataset) -> None:
    dataset.put("train/cyst/1.png", encode(picture(77)), label="cyst")
    assert dataset.validate() == 65
    assert f"{dataset.name('train/cyst/1.png')} (cyst)" in dataset.failed()["labels"]


def test_an_empty_manifest_is_rejected(dataset: Dataset) -> None:
    dataset.rows.clear()
    assert dataset.validate() == 65
    assert "found 0" in dataset.failed()["rows"]


def leak(dataset: Dataset) -> None:
    dataset.put("train/glioma/copy.jpg", encode(picture(500), "jpeg", quality=70))
    dataset.put("test/glioma/new.png", encode(picture(500)), "test")
    dataset.put("val/none/same.png", encode(picture(501)), "val", "none")
    dataset.put("train/none/same.png", encode(picture(501)), "train", "none")


def test_a_leak_rejects_the_data_when_the_card_says_fail(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    leak(dataset)
    assert dataset.validate() == 65
    message = last_message(capsys)
    name = dataset.name
    assert f"{name('train/glioma/copy.jpg')} (near duplicate of {name('test/glioma/new.png')})" in message
    assert f"{name('train/none/same.png')} (exact duplicate of {name('val/none/same.png')})" in message
    assert "on_leak" in message
    assert "drop_from_train" in message
    assert dataset.verdict()["dropped"] == []
    assert len(read_manifest(dataset.folder / "validate/manifest.parquet")) == len(dataset.rows)


def test_a_leak_is_dropped_and_recorded_when_the_card_says_so(dataset: Dataset) -> None:
    leak(dataset)
    dataset.card["on_leak"] = "drop_from_train"
    assert dataset.validate() == 0
    verdict = dataset.verdict()
    near, exact = verdict["dropped"]
    assert near.pop("similarity") > 0.98
    assert exact.pop("similarity") == 1.0
    for told, path, twin, reason in (
        (near, "train/glioma/copy.jpg", "test/glioma/new.png", "near duplicate"),
        (exact, "train/none/same.png", "val/none/same.png", "exact duplicate"),
    ):
        image, other = dataset.rows[path], dataset.rows[twin]
        facts = {key: image[key] for key in ("id", "file", "label", "split")}
        assert told == facts | {"reason": reason} | {
            f"twin_{key}": other[key] for key in ("id", "file", "label", "split")
        }
    accepted = read_manifest(dataset.folder / "validate/manifest.parquet")
    assert set(dataset.rows) - set(accepted["path"]) == {"train/glioma/copy.jpg", "train/none/same.png"}
    assert verdict["dropped_sentence"] == (
        "2 images were dropped: 1 from train (exact duplicate, val), 1 from train (near duplicate, test)."
    )
    assert verdict["leaks"]["exact_groups_across_splits"]["train and val"] == 1
    assert verdict["leaks"]["near_pairs_across_splits"]["train and test"] == 1


def test_classes_are_counted_again_after_dropping(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        dataset.put(f"train/glioma/{number}.png", encode(picture(600 + number)))
        dataset.put(f"test/glioma/copy{number}.png", encode(picture(600 + number)), "test")
    dataset.card["on_leak"] = "drop_from_train"
    assert dataset.validate() == 65
    assert dataset.failed() == {
        "count train/glioma": "Expected that the class glioma has at least 5 images in train; found 3."
    }
    assert "4 images were dropped: 4 from train (exact duplicate, test)." in last_message(capsys)


@pytest.mark.parametrize("on_leak", ["fail", "drop_from_train"])
def test_a_patient_in_two_splits_is_a_leak(dataset: Dataset, on_leak: str) -> None:
    for path in ("train/glioma/0.png", "train/none/1.png", "test/none/2.png"):
        dataset.rows[path]["patient"] = "00112233aabbccdd"
    dataset.card["on_leak"] = on_leak
    assert dataset.validate() == (65 if on_leak == "fail" else 0)
    if on_leak == "fail":
        name = dataset.name
        told = f"{name('train/glioma/0.png')} (as {name('test/none/2.png')})"
        assert told in dataset.failed()["leak: patients"]
    else:
        ids = [dataset.rows[path]["id"] for path in ("train/glioma/0.png", "train/none/1.png")]
        dropped = {row["id"]: (row["reason"], row["similarity"]) for row in dataset.verdict()["dropped"]}
        assert dropped == dict.fromkeys(ids, ("patient in two splits", None))


def patients_check(dataset: Dataset) -> dict[str, object]:
    (check,) = (check for check in dataset.verdict()["checks"] if check["name"] == "leak: patients")
    return dict(check)


def test_without_patients_their_check_is_not_passed_but_not_made(dataset: Dataset) -> None:
    assert dataset.validate() == 0
    check = patients_check(dataset)
    assert check["passed"] is None
    assert str(check["message"]).startswith("Not checked: the card names no patients")
    assert "<td>not checked</td>" in (dataset.folder / "validate/evidence/docs/index.html").read_text()


def test_a_check_on_a_column_that_is_empty_is_not_passed_but_not_made(dataset: Dataset) -> None:
    kwargs = {"column": "view", "value_set": ["PA", "AP"]}
    dataset.card["expectations"] = [{"type": "ExpectColumnValuesToBeInSet", "severity": "critical", "kwargs": kwargs}]
    for row in dataset.rows.values():
        row["view"] = None
    dataset.rows["test/none/1.png"]["sex"] = "F"
    assert dataset.validate() == 0
    made = {check["name"]: check for check in dataset.verdict()["checks"]}
    assert made["age"]["passed"] is None
    assert made["age"]["message"] == "Not checked: age is known of no image."
    assert made["card 0: ExpectColumnValuesToBeInSet"]["message"] == "Not checked: view is known of no image."
    assert made["sex"]["passed"] is True
    assert made["leak: images"]["passed"] is True


def test_images_without_a_patient_are_counted_beside_the_others(dataset: Dataset) -> None:
    for path in ("train/glioma/0.png", "train/none/1.png"):
        dataset.rows[path]["patient"] = "00112233aabbccdd"
    assert dataset.validate() == 0
    check = patients_check(dataset)
    assert check["passed"] is True
    assert "32 of 34 images have no patient" in str(check["message"])
    assert dataset.verdict()["leaks"]["images_without_a_patient"] == 32


def test_what_is_odd_but_usable_is_a_warning(dataset: Dataset) -> None:
    dataset.put("train/none/again.png", encode(picture(1)), label="none")  # is also train/glioma/0.png
    dataset.rows["test/none/1.png"] |= {"age": 200.0, "sex": "unsure"}
    dark = np.zeros((32, 32), np.uint8)
    dark[3, 4] = 255
    dataset.put("val/none/dark.png", encode(Image.fromarray(dark)), "val", "none")
    assert dataset.validate() == 0
    warned = dataset.failed("warning")
    assert set(warned) == {"labels agree", "repeated files", "age", "sex", "brightness"}
    name = dataset.name
    assert f"{name('train/glioma/0.png')} ({name('train/none/again.png')})" in warned["labels agree"]
    assert f"{name('test/none/1.png')} (200" in warned["age"]


def expect(dataset: Dataset, kind: str, severity: str = "critical", **kwargs: object) -> None:
    dataset.card["expectations"] = [{"type": kind, "severity": severity, "kwargs": kwargs}]


@pytest.mark.parametrize(("severity", "code"), [("critical", 65), ("warning", 0)])
def test_the_severity_of_the_cards_own_expectation_decides(dataset: Dataset, severity: str, code: int) -> None:
    expect(dataset, "ExpectColumnValuesToBeInSet", severity, column="modality", value_set=["CT"])
    assert dataset.validate() == code
    (message,) = dataset.failed(severity).values()
    assert f"not so for 34 of 34 images: {dataset.name('test/glioma/0.png')} (MRI)" in message


def test_an_expectation_on_the_whole_column_tells_what_it_found(dataset: Dataset) -> None:
    expect(dataset, "ExpectColumnMeanToBeBetween", column="width", min_value=100)
    assert dataset.validate() == 65
    (message,) = dataset.failed().values()
    assert message.endswith("found 48.0.")


def test_an_aggregate_of_nothing_is_recorded_as_null(dataset: Dataset) -> None:
    expect(dataset, "ExpectColumnMeanToBeBetween", "warning", column="age", min_value=0)
    assert dataset.validate() == 0
    assert dataset.verdict()["checks"][-1]["observed"] is None


@pytest.mark.parametrize(
    ("kind", "kwargs", "told"),
    [
        ("ExpectColumnValuesToBeNice", {"column": "age"}, "expectations.0.type: .*'ExpectColumnValuesToBeNice'"),
        ("ExpectColumnValuesToBeUnique", {"column": "weight"}, "expectations.0.kwargs.column: .*'weight'"),
        ("ExpectColumnValuesToBeUnique", {"colum": "age"}, "expectations.0.kwargs: .*colum"),
        ("ExpectColumnValuesToBeBetween", {"column": "label", "min_value": 1}, "expectations.0: .*can't be evaluated"),
    ],
    ids=["unknown type", "unknown column", "unknown argument", "crash"],
)
def test_a_senseless_expectation_is_the_cards_fault_not_the_datas(
    dataset: Dataset, kind: str, kwargs: dict[str, object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expect(dataset, kind, **kwargs)
    assert dataset.validate() == 64
    message = last_message(capsys)
    assert re.search(f"demo.yaml: {told}", message), message
    assert not (dataset.folder / "validate/evidence").exists()


def test_a_missing_copy_of_an_image_is_missing_input(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    file = dataset.rows["val/none/0.png"]["file"]
    (dataset.folder / "images" / file).unlink()
    assert dataset.validate() == 66
    message = last_message(capsys)
    assert f"images/{file} does not exist" in message
    assert "val/none/0.png" not in message


def test_a_copy_of_an_image_that_is_another_is_corrupt_input(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    file = dataset.folder / "images" / dataset.rows["val/none/0.png"]["file"]
    file.write_bytes((dataset.folder / "images" / dataset.rows["val/none/1.png"]["file"]).read_bytes())
    assert dataset.validate() == 67
    assert file.name in last_message(capsys)


def test_an_extra_column_must_not_hide_a_computed_one(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    for row in dataset.rows.values():
        row["width"] = "wide"
    assert dataset.validate() == 64
    assert "'width'" in last_message(capsys)


def test_two_runs_give_the_same_bytes(dataset: Dataset, copy_dataset: Callable[[Dataset], Dataset]) -> None:
    leak(dataset)
    dataset.put("train/glioma/bad.png", b"bad")
    other = copy_dataset(dataset)
    assert dataset.validate() == other.validate() == 65
    assert sha256_folder(dataset.folder / "validate") == sha256_folder(other.folder / "validate")
