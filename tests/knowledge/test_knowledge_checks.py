"""Each check, on sentences written by hand."""

import pytest

from clinprompt.data.card import Card
from clinprompt.knowledge.checks import CHECKS, Context, Statement, first_sentence, has_sentence, judge

QUESTION = "You read MRI images of the brain. In one sentence, describe the shape seen on a brain MRI with a glioma."
GOOD = "On a brain MRI with a glioma, the outline is irregular and the tissue around it is swollen."


def statement(text: str, class_id: str = "glioma", complete: bool = True) -> Statement:
    return Statement(class_id, QUESTION, text, complete)


def test_a_sensible_sentence_is_accepted_with_all_scores(card: Card) -> None:
    verdict = judge(statement(GOOD), Context(card.classes))
    assert verdict.accepted
    assert verdict.reason is None
    assert list(verdict.scores) == [check.name for check in CHECKS]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The outline is irregular.", "length"),
        ("It is " + "long and wide and bright and dark and soft and " * 6 + "thin.", "length"),
        ("Auf dem MRT des Gehirns erscheint der Tumor unscharf begrenzt mit Ödem.", "language"),
        ("На снимке мозга видна опухоль неправильной формы with a brain in it.", "language"),
        ("Glioma, edema, necrosis, enhancement, infiltration, heterogeneity, hemorrhage, midline shift.", "language"),
        ("As an AI, I can only say that the outline of the mass is irregular on this image.", "refusal"),
        ("I'm sorry, but the outline of this lesion is not something that can be described here.", "refusal"),
        ("In one sentence, describe the shape seen on a brain MRI with a glioma.", "echo"),
        ("The outline of the mass is diffuse diffuse diffuse diffuse and it is in the brain.", "repetition"),
        ("The mass in the brain is in the mass in the brain and is in the mass in the brain.", "repetition"),
        ("The outline of a pituitary tumour is round and it lies at the base of the brain.", "other_class"),
        ("The outline of pituitary tumors is round and they lie at the base of the brain.", "other_class"),
    ],
)
def test_each_reason(card: Card, text: str, reason: str) -> None:
    verdict = judge(statement(text), Context(card.classes))
    assert not verdict.accepted
    assert verdict.reason == reason


def test_an_unfinished_sentence_is_rejected_first(card: Card) -> None:
    assert judge(statement("The outline of the", complete=False), Context(card.classes)).reason == "unfinished"


def test_near_duplicates_are_rejected_within_a_class_only(card: Card) -> None:
    context = Context(card.classes)
    text = "The outline on the image is smooth and round, with a thin bright rim around it."
    assert judge(statement(text), context).accepted
    assert judge(statement(text), context).reason == "duplicate"
    assert judge(statement(text.replace("thin", "fine").upper()), context).reason == "duplicate"
    assert judge(statement(text, class_id="none"), context).accepted


def test_rejected_texts_do_not_make_later_ones_duplicates(card: Card) -> None:
    context = Context(card.classes)
    assert judge(statement(GOOD, complete=False), context).reason == "unfinished"
    assert judge(statement(GOOD), context).accepted


def test_the_own_name_is_no_mention_of_another_class(card: Card) -> None:
    text = "On a brain MRI with a pituitary tumour, the outline is round and smooth."
    assert judge(statement(text, class_id="adenoma"), Context(card.classes)).accepted


def test_generic_names_and_labels_are_not_mentions(card: Card) -> None:
    normal = card.classes[2].model_copy(update={"id": "0", "name": "normal"})
    text = "On a brain MRI with a glioma, the outline is 0 and none of the tissue is normal near it."
    assert judge(statement(text), Context([card.classes[0], normal])).accepted


@pytest.mark.parametrize(
    ("raw", "ended", "expected"),
    [
        ("It is round. It is also smooth.", False, ("It is round.", True)),
        ("It is 3.5 cm wide, e.g. on T1. More", False, ("It is 3.5 cm wide, e.g. on T1.", True)),
        ("It is round\nand then a list", True, ("It is round", False)),
        ("It is round", True, ("It is round.", True)),
        ("It is round", False, ("It is round", False)),
        ('It is "round." Then', False, ('It is "round."', True)),
        ("  It   is\tround.", True, ("It is round.", True)),
        ("", True, ("", False)),
    ],
)
def test_texts_are_trimmed_to_the_first_sentence(raw: str, ended: bool, expected: tuple[str, bool]) -> None:
    assert first_sentence(raw, ended) == expected


def test_no_more_is_needed_once_the_text_goes_on_after_a_sentence() -> None:
    assert not any(has_sentence(text) for text in (" It is", " It is 3.", " It is 3.5"))
    assert all(has_sentence(text) for text in (" It is 3. A", "One\n", "\n One"))
