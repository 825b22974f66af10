"""Reports in words: the published sentence, and others of the same facts. What is absent is said to be unavailable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clinprompt.data.card import Card, Measure
from clinprompt.errors import BadParams
from clinprompt.reports.frame import AGE, LABEL, SEX, fill, measure_keys
from clinprompt.reports.needs import unmet
from clinprompt.reports.normative import NormativeModel
from clinprompt.reports.style import ReportStyle
from clinprompt.reports.subjects import Numbers, Subjects

PHOTO = "A photo of {}"
UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Facts:
    """What a report tells of one subject.

    Attributes:
        label: the class's name; None: it is left out.
        measures: empty where the class alone is told, and then neither age nor sex are.
        values, z: of the measures; NaN where one is not known. `z` is empty where none are told.
    """

    label: str | None
    measures: tuple[Measure, ...]
    values: tuple[float, ...]
    z: tuple[float, ...] = ()
    age: float = float("nan")
    sex: str | None = None


@dataclass(frozen=True)
class Reports:
    """Each image's reports, n x v texts, and how often each of the v is drawn (the shares sum to 1)."""

    texts: tuple[tuple[str, ...], ...]
    shares: tuple[float, ...]


def published(facts: Facts) -> str:
    """DEFT-VLM-AD's sentence: two decimals, no units, "Data unavailable"."""
    head = "A photo" if facts.label is None else PHOTO.format(facts.label)
    told = ", ".join(
        f"{measure.name}: {value:.2f}" if np.isfinite(value) else f"{measure.name}: Data unavailable"
        for measure, value in zip(facts.measures, facts.values, strict=True)
    )
    return f"{head}: {told}" if told else head


def _listed(facts: Facts) -> str:
    head = "Scan" if facts.label is None else f"Scan of {facts.label}"
    return ". ".join([head, *_told(facts, "{name} {value}", "{name} unavailable")]) + "."


def _of_a_person(facts: Facts) -> str:
    age = f"age {facts.age:.0f} years" if np.isfinite(facts.age) else "age unavailable"
    sex = f"sex {facts.sex}" if facts.sex else "sex unavailable"
    person = f"Subject, {age}, {sex}" if facts.measures else "Subject"
    diagnosis = [] if facts.label is None else [f"diagnosis {facts.label}"]
    return "; ".join([person, *diagnosis, *_told(facts, "{name} {value}", "{name} unavailable")]) + "."


def _measures_first(facts: Facts) -> str:
    told = _told(facts, "{name} is {value}", "{name} is unavailable")
    end = [] if facts.label is None else [f"this is a photo of {facts.label}"]
    return ", ".join([*told, *end]) + "." if told or end else "A photo."


PHRASINGS: dict[str, tuple[Callable[[Facts], str], ...]] = {
    "published": (published,),
    "varied": (published, _listed, _of_a_person, _measures_first),
}


def paraphrased(text: str) -> Callable[[Facts], str]:
    """What a sentence with the placeholders of the card's frame tells of a subject; a class left out is unavailable."""

    def sentence(facts: Facts) -> str:
        values = [
            (LABEL, facts.label or UNAVAILABLE),
            (AGE, f"{facts.age:.0f} years" if np.isfinite(facts.age) else UNAVAILABLE),
            (SEX, facts.sex or UNAVAILABLE),
            *zip(measure_keys(facts.measures), _told(facts, "{value}", UNAVAILABLE), strict=True),
        ]
        return fill(text, dict(values))

    return sentence


def write_reports(
    card: Card, rows: pd.DataFrame, training: pd.DataFrame, style: ReportStyle, paraphrases: Sequence[str] = ()
) -> Reports:
    """Write the reports of a manifest's rows; the same rows give the same words.

    Args:
        training: the rows of the training split, of which the healthy ones tell what is normal. Not read without
            z-scores.
        paraphrases: of the card's frame, where the style asks for them.

    Raises:
        BadParams: the card has no record, or not what z-scores need; or there is no paraphrase.
        DataRejected: a cell of the record is no number.
    """
    lacking = unmet(card, z_scores=style.z_scores, adjust_for=style.adjust_for)
    if card.record is None or lacking:
        raise BadParams(f"{lacking}.")
    subjects, names = Subjects.of(card, rows), {info.id: info.name for info in card.classes}
    z = _normative(card, training, style).z(subjects) if style.z_scores else None
    told = tuple(card.record.measures) if style.caption != "label" else ()
    with_label = 0.0 if style.caption == "measures" else 1.0
    with_label -= style.label_dropout if style.caption == "full" else 0.0
    sentences = _sentences(style, paraphrases)
    heads = [(named, share / len(sentences)) for named, share in ((True, with_label), (False, 1 - with_label)) if share]

    def facts(place: int, named: bool) -> Facts:
        label = names[subjects.labels[place]] if named else None
        values, scores = subjects.measures[place, : len(told)], _row(z, place, len(told))
        return Facts(label, told, tuple(values), scores, float(subjects.age[place]), subjects.sex[place])

    return Reports(
        texts=tuple(
            tuple(sentence(facts(place, named)) for named, _ in heads for sentence in sentences)
            for place in range(len(subjects))
        ),
        shares=tuple(share for _, share in heads for _ in sentences),
    )


def _sentences(style: ReportStyle, paraphrases: Sequence[str]) -> tuple[Callable[[Facts], str], ...]:
    if style.phrasings != "paraphrased":
        return PHRASINGS[style.phrasings]
    if not paraphrases:
        raise BadParams(
            "phrasings: paraphrased needs an accepted paraphrase of the reports' sentence, and there is none; run the "
            "stage describe again (dvc repro), name another knowledge.llm in params.yaml, or set phrasings: varied."
        )
    return (published, *map(paraphrased, paraphrases))


def _normative(card: Card, training: pd.DataFrame, style: ReportStyle) -> NormativeModel:
    assert card.record is not None  # noqa: S101 - `write_reports` has seen to it
    columns = [measure.column for measure in card.record.measures]
    healthy = training[training["label"] == card.record.reference]
    place = None if style.adjust_for is None else columns.index(style.adjust_for)
    return NormativeModel.fit(Subjects.of(card, healthy), place)


def _row(z: Numbers | None, place: int, measures: int) -> tuple[float, ...]:
    return () if z is None else tuple(z[place, :measures])


def _told(facts: Facts, known: str, absent: str) -> list[str]:
    """A phrase for each measure."""
    scores = facts.z or (float("nan"),) * len(facts.values)
    return [
        known.format(name=measure.name, value=_number(value, measure.unit, score))
        if np.isfinite(value)
        else absent.format(name=measure.name)
        for measure, value, score in zip(facts.measures, facts.values, scores, strict=True)
    ]


def _number(value: float, unit: str, z: float) -> str:
    decimals = 0 if abs(value) >= 1000 else 2
    parts = [f"{value:.{decimals}f}", *([unit] if unit else []), *([f"(z {z:.1f})"] if np.isfinite(z) else [])]
    return " ".join(parts)
