"""Novel classes: what a card may say of them, and that no image of theirs gets where something could learn from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ingest_workspace import CARD, Workspace

from clinprompt.data.card_parts import card_digests, rest_digest
from clinprompt.data.dataset import Dataset
from clinprompt.data.load import load_card
from clinprompt.errors import BadParams
from clinprompt.params import load_params
from clinprompt.validation.verdict import validate

LABELS = ("glioma", "none", "cyst", "abscess")
NOVEL = [{"id": c, "name": c, "phrase": f"a brain MRI with {c}", "aliases": [f"{c} lesion"]} for c in LABELS[2:]]


def published(place: Workspace, counts: dict[str, int]) -> None:
    """`<split>/<class>/*` of four classes, two of them novel."""
    place.card(novel_classes=NOVEL)
    for split, count in counts.items():
        for label in LABELS:
            for k in range(count):
                place.image(f"{split}/{label}/{k}.png")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"novel_classes": NOVEL[:1]}, "novel_classes: 'cyst' is the only one, and of a single name every answer is"),
        ({"novel_classes": ["cyst", "abscess"]}, "novel_classes.0"),
        ({"novel_classes": [*NOVEL, CARD["classes"][0]]}, "stands for both 'glioma' and 'glioma'"),
        ({"novel_classes": [*NOVEL, NOVEL[0] | {"id": "tumour", "aliases": ["1"]}]}, "classes: '1' stands for both"),
        ({"classes": [], "novel_classes": [*CARD["classes"], *NOVEL]}, "classes: "),
        ({"classes": CARD["classes"][:1], "novel_classes": NOVEL}, "classes: "),
    ],
)
def test_a_card_whose_novel_classes_make_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CARD | changes))
    with pytest.raises(BadParams) as raised:
        load_card(tmp_path / "toy.yaml")
    assert sentence in str(raised.value)


def test_novel_classes_are_no_classes_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CARD | {"novel_classes": NOVEL}))
    card = load_card(tmp_path / "toy.yaml")
    assert card.class_ids == ["glioma", "none"]
    assert card.named_ids == list(LABELS)
    assert card.class_of("Cyst lesion") == "cyst"


def test_a_novel_class_changes_what_reads_it_and_its_aliases_only_the_files(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"

    def digests(**changes: Any) -> dict[str, str]:
        path.write_text(yaml.safe_dump(CARD | changes))
        return card_digests(load_card(path)) | {"rest": rest_digest(path)}

    plain, none, some = digests(), digests(novel_classes=[]), digests(novel_classes=NOVEL)
    assert plain == none
    assert {key for key in some if some[key] != plain[key]} == {"card", "rest", "files", "phrases"}
    renamed = digests(novel_classes=[{key: one[key] for key in ("id", "name", "phrase")} for one in NOVEL])
    assert {key for key in renamed if renamed[key] != some[key]} == {"files"}


def test_only_test_images_of_novel_classes_stay_and_in_a_split_of_their_own(place: Workspace) -> None:
    published(place, {"train": 3, "val": 2, "test": 2})
    assert place.ingest() == 0
    rows = place.manifest()
    found = rows.groupby(["split", "label"]).size().to_dict()
    base = {(split, label): n for split, n in (("train", 3), ("val", 2), ("test", 2)) for label in LABELS[:2]}
    assert found == base | {("novel", "cyst"): 2, ("novel", "abscess"): 2}
    assert set(rows["path"][rows["split"] == "novel"]) == {f"test/{c}/{k}.png" for c in LABELS[2:] for k in (0, 1)}
    files = {str(p.relative_to(place.folder / "out/images")) for p in (place.folder / "out/images").rglob("*.png")}
    assert files == set(rows["file"])


def test_where_a_rule_splits_a_patient_with_novel_images_is_tested_on_all_or_none(place: Workspace) -> None:
    place.card(
        novel_classes=NOVEL,
        reader={"kind": "table"},
        metadata={"patient": "patient"},
        split={"rule": "stratified", "fractions": {"train": 0.4, "val": 0.3, "test": 0.3}},
    )
    lines = ["path,label,patient"]
    for patient in range(24):
        for label in (LABELS[patient % 2], LABELS[2 + patient // 2 % 2]):
            place.image(f"{patient}-{label}.png")
            lines.append(f"{patient}-{label}.png,{label},p{patient}")
    place.table("\n".join(lines))
    assert place.ingest() == 0
    rows = place.manifest()
    novel, base = rows[rows["split"] == "novel"], rows[rows["split"] != "novel"]
    assert len(novel) > 0
    assert set(novel["label"]) <= set(LABELS[2:])
    assert set(base["label"]) == set(LABELS[:2])
    assert set(novel["patient"]) == set(base["patient"][base["split"] == "test"])


def verdict(place: Workspace, **changes: Any) -> Any:
    params = load_params(place.folder / "params.yaml").validation
    limits = params.model_copy(update={"min_side": 4, "min_images_per_class": 2} | changes)
    card = place.folder / "toy.yaml"
    out = place.folder / "out"
    dataset = Dataset.open(card, out / "manifest.parquet", out / "images")
    return validate(dataset.card, str(card), dataset.rows, dataset.images, limits, workers=0)


def test_validation_counts_and_asks_for_images_of_novel_classes_among_the_tested(place: Workspace) -> None:
    published(place, {"train": 3, "val": 3, "test": 2})
    assert place.ingest() == 0
    found = verdict(place)
    assert found.is_accepted, found.failures
    assert found.record["counts"]["novel"] == {"cyst": 2, "abscess": 2}
    assert found.classes == list(LABELS)
    assert "abscess" in found.docs
    few = verdict(place, min_images_per_class=3)
    assert any("the class cyst has at least 3 images in novel" in failure for failure in few.failures)


def test_a_novel_image_that_training_has_seen_is_a_leak_and_one_beside_the_test_split_none(
    place: Workspace,
) -> None:
    published(place, {"train": 3, "val": 2, "test": 2})
    data = place.image("test/cyst/0.png").read_bytes()
    (place.data / "test/none/0.png").write_bytes(data)
    assert place.ingest() == 0
    twins = verdict(place).record["leaks"]["images_with_a_twin_in_another_split"]
    assert twins == {"train": 0, "val": 0, "test": 0}
    (place.data / "train/none/0.png").write_bytes(data)
    assert place.ingest() == 0
    found = verdict(place)
    assert not found.is_accepted
    assert found.record["leaks"]["images_with_a_twin_in_another_split"]["train"] == 1
    place.card(novel_classes=NOVEL, on_leak="drop_from_train")
    kept = verdict(place).accepted
    assert "train/none/0.png" not in set(kept["path"])
    assert "test/cyst/0.png" in set(kept["path"])
