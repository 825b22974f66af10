"""What the report shows of single images: right and wrong answers, dropped ones beside their twins, flagged ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clinprompt.data.card import Card
from clinprompt.data.dataset import Dataset, Item, read_image
from clinprompt.data.manifest import shown_id
from clinprompt.parquet import read_frame
from components.report.figures import thumbnail

MOST_WRONG = 8


def examples(evaluation: Path, dataset: Dataset) -> dict[str, list[dict[str, Any]]] | None:
    """Test images: the most confident mistakes, and per class the surest and the least sure right answer.

    Args:
        evaluation: the candidate's folder. None is returned where it has no predictions.
    """
    path = evaluation / "predictions.parquet"
    if not path.is_file():
        return None
    card = dataset.card
    facts = ["id", "path", "split", "label", "predicted", *(f"p_{name}" for name in card.class_ids)]
    rows = read_frame(path, facts, "evaluate")
    rows = rows[rows["split"] == "test"].copy()
    rows["confidence"] = rows[[f"p_{name}" for name in card.class_ids]].max(axis=1)
    rows = rows.sort_values(["confidence", "path"], ascending=[False, True]).drop_duplicates("id")
    wrong = rows[rows["predicted"] != rows["label"]]
    right = rows[rows["predicted"] == rows["label"]]
    picked = [right[right["label"] == name].iloc[[0, -1]] for name in card.class_ids if (right["label"] == name).any()]
    chosen = pd.concat(picked).drop_duplicates("id") if picked else right
    files = dict(dataset.items(dataset.rows))
    return {
        "wrong": [_example(row, (row["id"], files[row["id"]]), card) for row in _records(wrong.head(MOST_WRONG))],
        "right": [_example(row, (row["id"], files[row["id"]]), card) for row in _records(chosen)],
        "totals": [{"wrong": len(wrong), "right": len(right)}],
    }


def dropped_pairs(dropped: Sequence[dict[str, Any]], images: Path, card: Card) -> list[dict[str, Any]]:
    """Dropped images beside their twins.

    Args:
        dropped: entries of verdict.json.
        images: the folder of ingest's copies.

    Returns:
        Of each the reason, the similarity (None: not measured), and the two images: id, split, class and picture.
    """
    pairs = []
    for one in dropped:
        twin = {key: one[f"twin_{key}"] for key in ("id", "file", "label", "split")}
        both = [_pictured(image, images, card) for image in (one, twin)]
        pairs.append({"reason": one["reason"], "similarity": one["similarity"], "images": both})
    return pairs


def flagged_images(flagged: Sequence[dict[str, Any]], images: Path, card: Card) -> list[dict[str, Any]]:
    """Images that checks of validation flag: of each its id, split, class, picture and the checks' names.

    Args:
        flagged: entries of verdict.json.
        images: the folder of ingest's copies.
    """
    return [_pictured(one, images, card) | {"checks": one["checks"]} for one in flagged]


def _pictured(image: dict[str, Any], images: Path, card: Card) -> dict[str, Any]:
    data = read_image((image["id"], images / image["file"]))
    names = {info.id: info.name for info in card.classes}
    return {
        "picture": thumbnail(data, card.intensity),
        "id": shown_id(image["id"]),
        "split": image["split"],
        "label": names.get(image["label"], image["label"]),
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _example(row: dict[str, Any], item: Item, card: Card) -> dict[str, Any]:
    names = {info.id: info.name for info in card.classes}
    return {
        "picture": thumbnail(read_image(item), card.intensity),
        "id": shown_id(row["id"]),
        "label": names[row["label"]],
        "predicted": names[row["predicted"]],
        "confidence": row["confidence"],
        "of_label": row[f"p_{row['label']}"],
    }
