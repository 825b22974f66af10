"""Each check, on sentences written by hand."""

import pytest

from clinprompt.data.card import Card, ClassInfo
from clinprompt.knowledge.checks import CHECKS, Context, Statement, first_sentence, has_sentence, judge
from clinprompt.knowledge.images.grounding import UNGROUNDED
from clinprompt.knowledge.reasons import REASONS
from clinprompt.knowledge.settle import CONTRADICTION, NEAR_DUPLICATE, REVIEWED, UNDECIDED, UNSUPPORTED

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
        (
            "In the brain, a gli\u043ema is an irregular mass which is bright on most of the images and has an edema "
            "around it.",
            "language",
        ),  # with a Cyrillic letter
        ("On a brain MRI with a gli\u200boma, the outline is irregular and the tissue around it is swollen.", "markup"),
        ("On a brain MRI with a glioma, the outline \u202eis irregular and the tissue around it is swollen.", "markup"),
        ("On a brain MRI with a glioma, the outline\U000e0041 is irregular and the tissue is swollen.", "markup"),
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


def mentions(own: ClassInfo, sibling: ClassInfo, text: str) -> bool:
    """Whether a description of `own` is rejected because it speaks of `sibling`."""
    for classes in ([own, sibling], [sibling, own]):  # their order in the card makes no difference
        verdict = judge(Statement(own.id, QUESTION, text, True), Context(classes))
        assert verdict.reason in (None, "other_class"), verdict
    return not verdict.accepted


COVID = ClassInfo(id="covid", name="COVID-19", phrase="chest X-ray showing COVID-19 pneumonia")
PNEUMONIA = ClassInfo(id="pneumonia", name="Pneumonia", phrase="chest X-ray showing pneumonia")
BACTERIAL = ClassInfo(id="bacterial", name="bacterial pneumonia", phrase="chest X-ray with bacterial pneumonia")
TUMOUR = ClassInfo(id="t", name="tumour", phrase="brain MRI with a tumour")
PITUITARY = ClassInfo(id="p_t", name="pituitary tumour", phrase="brain MRI with a pituitary tumour")


@pytest.mark.parametrize(
    ("own", "sibling", "text", "mentioned"),
    [
        (COVID, PNEUMONIA, "On chest X-ray showing COVID-19 pneumonia, the outline looks hazy in the lungs.", False),
        (COVID, PNEUMONIA, "With COVID-19 the pneumonia looks hazy and is often in both of the lungs.", False),
        (PNEUMONIA, COVID, "On chest X-ray showing pneumonia, the outline looks as in COVID-19 of the lungs.", True),
        (PNEUMONIA, COVID, "On chest X-ray showing pneumonia, the outline looks hazy in one of the lungs.", False),
        (BACTERIAL, PNEUMONIA, "The bacterial pneumonia is a dense pneumonia in one of the lobes of the lung.", False),
        (PNEUMONIA, BACTERIAL, "The outline of a bacterial pneumonia is dense and in one lobe of the lung.", True),
        (PITUITARY, TUMOUR, "The tumor is round and the pituitary tumours are bright at the base of the brain.", False),
        (TUMOUR, PITUITARY, "The pituitary tumor is round and it is bright at the base of the brain.", True),
        (TUMOUR, PITUITARY, "The tumours are round and they are bright at the base of the brain.", False),
    ],
)
def test_names_that_hold_each_other_are_told_apart(
    own: ClassInfo, sibling: ClassInfo, text: str, mentioned: bool
) -> None:
    assert mentions(own, sibling, text) == mentioned


@pytest.mark.parametrize("word", ["a", "no", "left", "normal", "1", "12 3", "high_grade", "in the"])
def test_an_ordinary_word_as_id_or_name_is_no_mention(word: str) -> None:
    class_id = word.replace(" ", "_")
    text = "On an image of the left lobe no edge is seen in the normal tissue, a high grade in 12 3 and 1."
    for name in (word, "meningioma"):
        assert not mentions(TUMOUR, ClassInfo(id=class_id, name=name, phrase="a scan"), text)


def test_an_id_that_is_a_clinical_word_still_is_a_mention() -> None:
    sibling = ClassInfo(id="glioma", name="glial tumour", phrase="brain MRI with a glial tumour")
    assert mentions(TUMOUR, sibling, "The outline of a glioma is irregular and it is bright in the brain.")


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


def test_every_reason_has_words_for_people() -> None:
    assert {check.name for check in CHECKS} <= REASONS.keys()
    assert {NEAR_DUPLICATE, UNSUPPORTED, CONTRADICTION, UNDECIDED, REVIEWED, UNGROUNDED} <= REASONS.keys()
