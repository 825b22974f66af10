"""What methods learn of the subjects' records: which reports are drawn, z-scores of whom, and what is refused."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from clinprompt.data.card import Card
from clinprompt.data.dataset import Dataset
from clinprompt.data.load import load_card
from clinprompt.errors import DataRejected, InputMissing, NotTrained
from clinprompt.knowledge.outputs import COLUMNS
from clinprompt.prompting.base import Needs
from clinprompt.prompting.batches import ReportIds
from clinprompt.reports.style import ReportStyle
from clinprompt.reports.writing import write_reports
from clinprompt.training.inputs import ExampleLoader
from clinprompt.training.records import records_of

CARDS = Path(__file__).parents[2] / "datasets"
SPLITS = ("train", "val", "test")


@pytest.fixture
def card() -> Card:
    """Of the drawn brains: three classes, six measures, an MMSE; nc is the class of the healthy."""
    return load_card(CARDS / "brain-phantom-3d.yaml")


def dataset_of(card: Card, n: int = 36) -> Dataset:
    """Subjects whose volumes hang on age, sex and the whole brain; no images."""
    assert card.record is not None
    rng, labels = np.random.default_rng(0), np.array(card.class_ids)[np.arange(n) % 3]
    rows = pd.DataFrame({"id": [f"{k:064x}" for k in range(n)], "label": labels})
    rows["split"] = np.array(SPLITS)[np.arange(n) // 3 % 3]
    rows["age"], rows["sex"] = rng.uniform(60, 90, n), rng.choice(["F", "M"], n)
    for measure in card.record.all_measures():
        rows[measure.column] = [f"{value:.1f}" for value in rng.uniform(20, 30, n) * (labels == "nc") + 1.0]
    rows["hippocampus"] = (3 * rows["whole_brain"].astype(float) + rng.normal(size=n)).map("{:.4f}".format)
    return Dataset(card, rows, Path("absent"))


def backbone_of(context: int = 500) -> Any:
    """One token for each character, of as many as there are."""

    def tokenize(texts: list[str]) -> Tensor:
        codes = [[ord(letter) for letter in text[:context].ljust(context, "\0")] for text in texts]
        return torch.tensor(codes, dtype=torch.int64)

    return SimpleNamespace(
        name="letters", tokenize=tokenize, text=SimpleNamespace(real_length=lambda ids: (ids > 0).sum(1))
    )


def texts_of(reports: ReportIds, n: int) -> list[str]:
    """The words that an epoch reads, of each example."""
    return ["".join(map(chr, row)).rstrip("\0") for row in reports.rows(torch.arange(n)).tolist()]


def records(dataset: Dataset, style: ReportStyle, backbone: Any = None) -> Any:
    return records_of(dataset, dataset.rows, style, backbone or backbone_of(), "deft_ad")


def test_every_phrasing_and_the_class_are_drawn_as_often_as_the_style_says(card: Card) -> None:
    n, dataset = 3000, dataset_of(card)
    style = ReportStyle(phrasings="varied", label_dropout=0.2)
    written = write_reports(card, dataset.rows, dataset.rows, style)
    assert written.shares == pytest.approx([0.2] * 4 + [0.05] * 4)
    names = [info.name for info in card.classes]
    of_one = written.texts[0]
    assert [any(name in text for name in names) for text in of_one] == [True] * 4 + [False] * 4
    drawn = ReportIds(torch.arange(8).expand(n, 8)[:, :, None], written.shares)
    found = Counter(drawn.at(3, 1).rows(torch.arange(n))[:, 0].tolist())
    for place, share in enumerate(written.shares):  # within 4.5 standard deviations
        assert abs(found[place] - n * share) < 4.5 * (n * share * (1 - share)) ** 0.5


def test_what_is_drawn_hangs_on_seed_and_epoch_alone(card: Card) -> None:
    dataset = dataset_of(card)
    n, reports = len(dataset.rows), records(dataset, ReportStyle(phrasings="varied", label_dropout=0.5))["reports"]
    drawn = {key: texts_of(reports.at(*key), n) for key in ((1, 0), (1, 1), (2, 0))}
    assert len({tuple(texts) for texts in drawn.values()}) == 3
    again = records(dataset, ReportStyle(phrasings="varied", label_dropout=0.5))["reports"]
    assert texts_of(again.at(1, 0), n) == drawn[1, 0]
    # A part of the examples is drawn as it is in the whole: batches and processes change nothing.
    some = torch.tensor([30, 2])
    assert torch.equal(again.at(1, 0).rows(some), again.at(1, 0).rows(torch.arange(n))[some])


VALIDATES = 3  # a healthy subject of the validation split


def listed(dataset: Dataset, style: ReportStyle) -> str:
    """The report of that subject that holds z-scores behind each value."""
    ids: Tensor = records(dataset, style)["reports"].ids
    return "".join(map(chr, ids[VALIDATES, 1].tolist())).rstrip("\0")


PARAPHRASE = (
    "In a subject of age {age} and sex {sex}, the MRI shows {label}: Hippocampal Vol {hippocampal_vol}, Ventricular "
    "size {ventricular_size}, Whole brain Vol {whole_brain_vol}, Entorhinal Vol {entorhinal_vol}, Fusiform Vol "
    "{fusiform_vol}, Middle temporal Vol {middle_temporal_vol}."
)


def described(path: Path, *texts: str) -> Path:
    """A table of descriptions with paraphrases, all but the first of them rejected."""
    rows = [dict.fromkeys(COLUMNS, "") | {"text": text, "accepted": not k} for k, text in enumerate(texts)]
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(path)
    return path


def test_a_paraphrase_is_filled_with_the_subject_s_facts(card: Card, tmp_path: Path) -> None:
    dataset, style = dataset_of(card), ReportStyle(phrasings="paraphrased", label_dropout=0.5)
    dataset.rows.loc[0, ["age", "sex", "hippocampus", "ventricles"]] = [71.6, "F", "3400.4", None]
    dataset.rows.loc[1, ["age", "sex", "hippocampus"]] = [np.nan, None, "{sex}"]
    with pytest.raises(DataRejected, match=r"holds '\{sex\}'"):
        records_of(
            dataset, dataset.rows, style, backbone_of(), "deft_ad", described(tmp_path / "d.parquet", PARAPHRASE)
        )
    dataset.rows.loc[1, "hippocampus"] = None
    table = described(tmp_path / "d.parquet", PARAPHRASE, "Rejected {label}.")
    found: Any = records_of(dataset, dataset.rows, style, backbone_of(), "deft_ad", table)
    assert found["reports"].shares == pytest.approx([0.25] * 4)  # the published sentence and it, with the class or not
    texts = ["".join(map(chr, row.tolist())).rstrip("\0") for row in found["reports"].ids[0]]
    told = "In a subject of age 72 years and sex F, the MRI shows {}: Hippocampal Vol 3400 mm3, Ventricular size"
    told += " unavailable,"
    assert texts[0].startswith("A photo of normal cognition: Hippocampal Vol: 3400.40, ")
    assert texts[1].startswith(told.format("normal cognition"))
    assert texts[3].startswith(told.format("unavailable"))
    assert not any("{" in text or "nan" in text for text in texts)
    second = "".join(map(chr, found["reports"].ids[1, 1].tolist()))
    assert second.startswith(
        "In a subject of age unavailable and sex unavailable, the MRI shows mild cognitive impairment"
    )
    assert "Hippocampal Vol unavailable, " in second
    with_z = style.model_copy(update={"z_scores": True})
    scored: Any = records_of(dataset, dataset.rows, with_z, backbone_of(), "deft_ad", table)
    assert "(z " in "".join(map(chr, scored["reports"].ids[0, 1].tolist()))


def test_without_a_paraphrase_it_is_said_what_to_do(card: Card, tmp_path: Path) -> None:
    dataset, style = dataset_of(card), ReportStyle(phrasings="paraphrased")
    with pytest.raises(InputMissing, match="deft_ad reads paraphrases .*: list it under candidates.taught"):
        records(dataset, style)
    empty = described(tmp_path / "d.parquet")
    with pytest.raises(
        NotTrained, match="phrasings: paraphrased needs an accepted paraphrase .* set phrasings: varied"
    ):
        records_of(dataset, dataset.rows, style, backbone_of(), "deft_ad", empty)
    with pytest.raises(ValidationError, match="paraphrases tell of measures, and caption: label of none"):
        ReportStyle(phrasings="paraphrased", caption="label")


def test_normal_is_what_the_healthy_of_the_training_split_are(card: Card) -> None:
    style = ReportStyle(phrasings="varied", z_scores=True)

    def told(split: str, labels: tuple[str, ...]) -> str:
        """The subject's report, when the measures of such others are ten times as large."""
        dataset = dataset_of(card, 180)
        rows = dataset.rows
        at = (rows["split"] == split) & rows["label"].isin(labels) & (rows.index != VALIDATES)
        rows.loc[at, "hippocampus"] = (10 * rows.loc[at, "hippocampus"].astype(float)).map(str)
        return listed(dataset, style)

    plain = told("none", ())
    assert "(z " in plain
    assert told("train", ("mci", "ad")) == told("val", ("nc", "mci", "ad")) == told("test", ("nc",)) == plain
    assert told("train", ("nc",)) != plain


def test_normal_values_can_hang_on_another_measure(card: Card) -> None:
    def z(adjust_for: str | None) -> float:
        dataset = dataset_of(card, 180)
        dataset.rows.loc[VALIDATES, ["hippocampus", "whole_brain"]] = ["76.0", "22.0"]  # 3 x 22, and 10 more
        text = listed(dataset, ReportStyle(phrasings="varied", z_scores=True, adjust_for=adjust_for))
        return float(text.partition("(z ")[2].partition(")")[0])

    assert z("whole_brain") > 5.0
    assert abs(z(None)) < 3.0
    with pytest.raises(NotTrained, match=r"adjust_for names 'skull', which is none of hippocampus, "):
        records(dataset_of(card), ReportStyle(phrasings="varied", z_scores=True, adjust_for="skull"))


def test_what_is_no_number_is_told_with_its_image(card: Card) -> None:
    for column in ("ventricles", "mmse"):
        dataset = dataset_of(card)
        dataset.rows.loc[4, column] = "about 30"
        with pytest.raises(DataRejected, match=rf"column '{column}' holds 'about 30' for the image 0{{8}}"):
            records(dataset, ReportStyle())
    dataset.rows.loc[4, "mmse"] = None
    scores = records(dataset, ReportStyle())["scores"]
    assert scores.isnan().nonzero().flatten().tolist() == [4]


def test_a_card_without_a_record_is_told_in_one_sentence(card: Card) -> None:
    bare = card.model_copy(update={"record": None})
    with pytest.raises(NotTrained) as told:
        records(Dataset(bare, dataset_of(card).rows, Path("absent")), ReportStyle())
    assert str(told.value) == (
        "datasets/brain-phantom-3d.yaml has no record, which deft_ad writes its reports from; add one, or take "
        "deft_ad out for this dataset."
    )


def test_reports_that_the_backbone_cannot_read_whole_are_told_once(
    card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = dataset_of(card)
    found = records(dataset, ReportStyle(), backbone_of(60))
    assert found["reports"].ids.shape[-1] == 60
    [line] = [record.getMessage() for record in caplog.records if "do not fit" in record.getMessage()]
    assert line == (
        "deft_ad: 36 of 36 reports do not fit the 60 tokens that the backbone letters reads; their ends are not read."
    )
    caplog.clear()
    records(dataset, ReportStyle())
    assert not caplog.records


def test_volumes_are_not_augmented(card: Card, tmp_path: Path) -> None:
    dataset, volumes = dataset_of(card), SimpleNamespace(name="m3d", device=torch.device("cpu"), preprocessing=object())
    loader = ExampleLoader(dataset, SimpleNamespace(), tmp_path, volumes)  # type: ignore[arg-type]
    model: Any = SimpleNamespace(needed=Needs("pixels"), name="vpt")
    with pytest.raises(NotTrained) as told:
        loader.examples(model, dataset.rows, "crop_flip")
    assert str(told.value) == (
        "params.yaml: training.augmentation: crop_flip is for pictures, and m3d reads volumes; set it to none."
    )
