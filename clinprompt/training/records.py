"""What a method learns of subjects beside their images: their reports as token ids, and their scores."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pandas as pd
import torch
from torch import Tensor

from clinprompt.data.dataset import Dataset
from clinprompt.errors import BadParams, InputMissing, NotTrained
from clinprompt.prompting.batches import ReportIds
from clinprompt.reports.style import ReportStyle
from clinprompt.reports.subjects import scores_of
from clinprompt.reports.writing import write_reports

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone
    from clinprompt.data.card import Card

log = logging.getLogger(__name__)


class RecordTensors(TypedDict, total=False):
    """The fields of `Examples` that hold records."""

    reports: ReportIds
    scores: Tensor | None


def records_of(
    dataset: Dataset,
    rows: pd.DataFrame,
    style: ReportStyle,
    backbone: "Backbone",
    method: str,
    descriptions: Path | None = None,
) -> RecordTensors:
    """The reports and scores of a manifest's rows.

    Args:
        descriptions: the table that holds the paraphrases, where the style asks for them.

    What is normal, for z-scores, is told by the training split alone.

    Raises:
        NotTrained: the card has no record, or not what z-scores need; or there is no accepted paraphrase.
        DataRejected: a cell of the record is no number.
        InputMissing, InputCorrupt: the paraphrases are not there, or can't be read.
    """
    card = dataset.card
    if card.record is None:
        raise NotTrained(
            f"datasets/{card.name}.yaml has no record, which {method} writes its reports from; add one, or take "
            f"{method} out for this dataset."
        )
    paraphrases = _paraphrases(card, descriptions, method) if style.phrasings == "paraphrased" else ()
    try:
        reports = write_reports(card, rows, dataset.split("train"), style, paraphrases)
    except BadParams as error:
        raise NotTrained(str(error)) from None
    flat = [text for texts in reports.texts for text in texts]
    ids = backbone.tokenize(flat) if flat else torch.zeros(0, 1, dtype=torch.int64)
    lengths = backbone.text.real_length(ids)
    cut = int((lengths >= ids.shape[1]).sum())
    if cut:  # the tokeniser cuts what is too long
        log.warning(
            "%s: %d of %d reports do not fit the %d tokens that the backbone %s reads; their ends are not read.",
            method, cut, len(flat), ids.shape[1], backbone.name,
        )  # fmt: skip
    cropped = ids[:, : max(lengths.tolist(), default=1)]
    scores = scores_of(card, rows)
    return {
        "reports": ReportIds(cropped.unflatten(0, (len(rows), len(reports.shares))), reports.shares),
        "scores": None if scores is None else torch.tensor(scores, dtype=torch.float32),
    }


def _paraphrases(card: "Card", path: Path | None, method: str) -> tuple[str, ...]:
    from clinprompt.knowledge.outputs import read_paraphrases
    from clinprompt.reports.frame import Frame

    if path is None:
        raise InputMissing(
            f"{method} reads paraphrases of the reports' sentence: list it under candidates.taught in params.yaml, or "
            "give --descriptions."
        )
    frame = Frame.of(card)
    return () if frame is None else read_paraphrases(path, frame)
