"""The dataset card: what it says when a key is wrong, and that every card of the repository loads."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from clinprompt.data.load import load_card
from clinprompt.errors import BadParams, InputMissing

CARDS = sorted((Path(__file__).parents[2] / "datasets").glob("*.yaml"))
CARD: dict[str, Any] = {
    "name": "two",
    "title": "Two classes",
    "modality": "MRI",
    "organ": "brain",
    "classes": [
        {"id": "glioma", "name": "glioma", "phrase": "a brain MRI with a glioma", "aliases": ["Glioma Tumor", "1"]},
        {"id": "none", "name": "no tumor", "phrase": "a brain MRI without a tumor"},
    ],
    "licence": "CC0",
    "source": "made up",
    "how_to_get": "Ask.",
    "reader": {"kind": "folder"},
}


def load(folder: Path, **changes: Any) -> Any:
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(CARD | changes))
    return load_card(path)


@pytest.mark.parametrize("path", CARDS, ids=lambda p: p.stem)
def test_every_card_of_the_repository_loads(path: Path) -> None:
    assert load_card(path).name == path.stem


def test_defaults_and_class_order(tmp_path: Path) -> None:
    card = load(tmp_path)
    assert card.class_ids == ["glioma", "none"]
    assert card.location == "two"
    assert card.split.rule == "given"
    assert card.intensity == "auto"
    assert card.on_leak == "fail"


def test_classes_are_found_by_id_and_alias_in_any_case(tmp_path: Path) -> None:
    card = load(tmp_path)
    assert [card.class_of(v) for v in ("GLIOMA", "glioma tumor", "1", "None")] == ["glioma", "glioma", "glioma", "none"]
    assert card.class_of("gliom") is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"modalitty": "MRI"}, "modalitty: no such key (did you mean 'modality'?)"),
        ({"split": {"rule": "given", "sed": 1}}, "split.sed: no such key (did you mean 'seed'?)"),
        ({"reader": {"kind": "folder", "split": 1}}, "reader.split: no such key (did you mean 'splits'?)"),
        (
            {"reader": {"kind": "dicom"}},
            "reader.kind: no reader 'dicom'; there are folder, table, visits, medmnist, phantom",
        ),
        ({"reader": {"kind": "folder", "splits": {"training": "x"}}}, "the keys are train, val and test"),
        ({"reader": {"kind": "folder", "splits": {"train": "x", "test": "X"}}}, "two splits have the same word"),
        ({"classes": CARD["classes"][:1]}, "classes: "),
        (
            {"classes": [*CARD["classes"], {"id": "x", "name": "x", "phrase": "x", "aliases": ["NONE"]}]},
            "'none' stands",
        ),
        ({"classes": [{"id": "a/b", "name": "x", "phrase": "x"}, CARD["classes"][0]]}, "classes.0.id"),
        ({"classes": [{"id": 0, "name": "x", "phrase": "x"}, CARD["classes"][0]]}, "classes.0.id"),
        ({"path": "../elsewhere"}, "path: must not hold '..'"),
        ({"intensity": [5, 5]}, "must ascend"),
        ({"intensity": "half"}, "intensity"),
        ({"split": {"rule": "stratified", "fractions": {"train": 0.5, "val": 0.1, "test": 0.1}}}, "must sum to 1"),
        ({"split": {"rule": "stratified", "val_from_train": 0.1}}, "val_from_train goes with rule given"),
        ({"split": {"folds": 5, "fold": 5}}, "fold must be below folds, found fold 5 of folds 5"),
        ({"split": {"fold": 1}}, "fold must be below folds, found fold 1 of folds None"),
        ({"split": {"folds": 5, "val_from_train": 0.1}}, "val_from_train and folds both make the val split"),
        (
            {"reader": {"kind": "table"}, "metadata": {"extra": ["fold"]}, "split": {"folds": 5}},
            "'fold' is the column that split.folds makes",
        ),
        ({"metadata": {"patient": "id"}}, "knows no columns"),
        ({"reader": {"kind": "table"}, "metadata": {"extra": ["site"]}}, "'site' is a column of every manifest"),
        ({"expectations": [{"type": "expect_it", "severity": "critical"}]}, "expectations.0.type"),
        ({"on_leak": "ignore"}, "on_leak"),
    ],
)
def test_a_wrong_key_is_named_by_its_path(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadParams) as caught:
        load(tmp_path, **changes)
    assert sentence in str(caught.value)
    assert "two.yaml" in str(caught.value)


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="none.yaml does not exist"):
        load_card(tmp_path / "none.yaml")
