"""Paraphrases of the reports' frame: what is accepted, and what is rejected for which reason."""

from pathlib import Path
from typing import Any

import pytest

from clinprompt.data.card import Card
from clinprompt.data.load import load_card
from clinprompt.knowledge import paraphrase as module
from clinprompt.knowledge.checks import Assessment, Context, judge
from clinprompt.knowledge.completion import Completion
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.paraphrase import OPENINGS, paraphrase
from clinprompt.knowledge.paraphrase_checks import Paraphrase, paraphrase_checks
from clinprompt.knowledge_params import KnowledgeParams
from clinprompt.reports.frame import OF_NO_CLASS, Frame

ROOT = Path(__file__).parents[2]
GOOD = (
    "In a subject of age {age} and sex {sex}, the MRI shows {label}: Hippocampal Vol {hippocampal_vol}, Ventricular "
    "size {ventricular_size}, a whole brain vol of {whole_brain_vol}, the Entorhinal Vol is {entorhinal_vol}, the "
    "Fusiform Vol {fusiform_vol} and the Middle temporal Vol {middle_temporal_vol}."
)


@pytest.fixture(scope="module")
def brains() -> Card:
    """Of the drawn brains: three classes, six measures."""
    return load_card(ROOT / "datasets" / "brain-phantom-3d.yaml")


@pytest.fixture(scope="module")
def frame(brains: Card) -> Frame:
    found = Frame.of(brains)
    assert found is not None
    return found


def judged(text: str, frame: Frame, card: Card, context: Context | None = None, *, complete: bool = True) -> Assessment:
    statement = Paraphrase(OF_NO_CLASS, frame.sentence, text, complete)
    return judge(statement, context or Context(card.classes), paraphrase_checks(frame))


def test_the_frame_has_a_placeholder_for_each_fact_and_no_fact(frame: Frame) -> None:
    assert frame.sentence == (
        "MRI of {label}: age {age}, sex {sex}, Hippocampal Vol {hippocampal_vol}, Ventricular size {ventricular_size}, "
        "Whole brain Vol {whole_brain_vol}, Entorhinal Vol {entorhinal_vol}, Fusiform Vol {fusiform_vol}, "
        "Middle temporal Vol {middle_temporal_vol}."
    )


def test_measures_of_one_name_have_placeholders_of_their_own(brains: Card) -> None:
    assert brains.record is not None
    twice = [measure.model_copy(update={"name": "Age"}) for measure in brains.record.measures]
    card = brains.model_copy(update={"record": brains.record.model_copy(update={"measures": twice})})
    found = Frame.of(card)
    assert found is not None
    keys = [slot.key for slot in found.slots]
    assert len(set(keys)) == len(keys)
    assert Frame.of(card.model_copy(update={"record": None})) is None


def test_a_faithful_paraphrase_is_accepted_with_all_scores(frame: Frame, brains: Card) -> None:
    verdict = judged(GOOD, frame, brains)
    assert (verdict.accepted, verdict.reason) == (True, None)
    assert list(verdict.scores) == [check.name for check in paraphrase_checks(frame)]
    assert judged(frame.sentence, frame, brains).accepted


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{ventricular_size}", "", "placeholders"),  # lost
        ("{ventricular_size}", "{ventricular_size} {ventricular_size}", "placeholders"),
        ("{ventricular_size}", "{ventricle_size}", "placeholders"),
        ("{label}", "{label} {stage}", "placeholders"),
        ("{label}", "{label} [stage]", "placeholders"),
        ("{label}", "{{label}}", "placeholders"),
        ("{label}", "{label} <stage>", "placeholders"),
        ("{label}", "{label}\u200b", "placeholders"),
        ("Fusiform Vol {fusiform_vol}", "Vol {fusiform_vol}", "swapped"),
        ("Fusiform Vol {fusiform_vol}", "Fusiform Vol and the Hippocampal Vol {fusiform_vol}", "swapped"),
        ("Hippocampal Vol {hippocampal_vol}", "Hippocampal Vol in {label} {hippocampal_vol}", "placeholders"),
        ("age {age} and sex {sex}", "sex {age} and age {sex}", "swapped"),
        ("the MRI shows {label}: Hippocampal Vol {h", "the MRI shows Hippocampal Vol {label}: {h", "swapped"),
        ("{sex},", "{sex} 70,", "number"),
        ("{hippocampal_vol}", "{hippocampal_vol} mm3", "number"),
        ("the MRI shows", "without mild cognitive impairment, the MRI shows", "other_class"),
        ("subject", "subject with Alzheimer's disease", "other_class"),
        ("subject", "subject with dementia", "other_word"),
        ("subject", "healthy subject", "other_word"),
        ("subject", "man", "other_word"),
        ("the MRI shows", "the MRI may not show", "other_word"),
        ("the MRI shows", "the CT shows", "other_word"),
        ("{age} and", "{age} years and", "other_word"),
        ("{age} and", "{age}, seventy, and", "other_word"),
        ("In a", "In the scan of the brain that is of the report of this study of the " * 8 + "a", "length"),
    ],
)
def test_each_reason(frame: Frame, brains: Card, old: str, new: str, reason: str) -> None:
    assert GOOD.count(old) == 1
    verdict = judged(GOOD.replace(old, new), frame, brains)
    assert not verdict.accepted
    assert verdict.reason == reason


def test_a_measure_s_name_may_hold_a_class_s_name_and_a_digit(brains: Card) -> None:
    assert brains.record is not None
    measure = brains.record.measures[0].model_copy(update={"name": "Dementia ratio 2"})
    record = brains.record.model_copy(update={"measures": [measure]})
    classes = [brains.classes[0].model_copy(update={"name": "dementia", "id": "dementia"})]
    card = brains.model_copy(update={"record": record, "classes": classes})
    found = Frame.of(card)
    assert found is not None
    text = "A scan of {label}, age {age} and sex {sex}, with Dementia ratio 2 of {dementia_ratio_2}."
    assert judged(text, found, card).accepted
    assert judged(text.replace("scan of", "scan of dementia,"), found, card).reason == "other_class"


@pytest.mark.parametrize(("one", "other"), [("hippocampal_vol", "fusiform_vol"), ("age", "sex"), ("age", "label")])
def test_two_placeholders_that_change_places_are_found(frame: Frame, brains: Card, one: str, other: str) -> None:
    swapped = GOOD.replace(f"{{{one}}}", "{}").replace(f"{{{other}}}", f"{{{one}}}").replace("{}", f"{{{other}}}")
    assert judged(swapped, frame, brains).reason == "swapped"


def test_unfinished_ones_and_copies_are_rejected(frame: Frame, brains: Card) -> None:
    context = Context(brains.classes)
    assert judged(GOOD, frame, brains, context, complete=False).reason == "unfinished"
    assert judged(GOOD, frame, brains, context).accepted
    assert judged(GOOD, frame, brains, context).reason == "duplicate"
    assert judged(GOOD.replace("the Fusiform", "Fusiform"), frame, brains, context).reason == "duplicate"
    # The same words about the same facts in another order are another sentence.
    age, _, rest = frame.sentence.partition(": ")[2].rstrip(".").partition(", ")
    turned = ", ".join([*reversed(rest.split(", ")), age])
    assert judged(f"MRI of {{label}}: {turned}.", frame, brains, context).accepted


def test_they_are_seeded_recorded_and_asked_for_again(
    llm: Llm, brains: Card, frame: Frame, knowledge: KnowledgeParams
) -> None:
    few = knowledge.model_copy(update={"paraphrases_per_opening": 1})
    first, again = (paraphrase(llm, brains, frame, few) for _ in range(2))
    assert first == again
    assert first.paraphrases != paraphrase(llm, brains, frame, few.model_copy(update={"seed": 1})).paraphrases
    # The random model gives none, so that all rounds are made.
    assert first.accepted == 0
    keys = [(one.round, one.prompt.aspect, one.index) for one in first.paraphrases]
    assert keys == [(number, aspect, number) for number in range(4) for aspect in OPENINGS]
    for one in first.paraphrases:
        assert one.raw.startswith(one.prompt.opening)
        assert frame.sentence in one.prompt.text


def test_a_list_ends_behind_its_last_measure_and_the_frame_s_copy_is_none(
    llm: Llm, brains: Card, frame: Frame, knowledge: KnowledgeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = ", ".join(slot.named for slot in frame.measures[2:])
    said = {"report_shows": f" {rest}, Fusiform Vol {{fusiform_vol}}.", "report_subject": f" {rest} are normal."}

    def answers(llm: Llm, samples: list[Any], *others: object) -> list[Completion]:
        return [Completion([], said.get(prompt.aspect, f" {rest}."), True) for prompt, _ in samples]

    monkeypatch.setattr(module, "complete_samples", answers)
    once = paraphrase(llm, brains, frame, knowledge.model_copy(update={"paraphrases_per_opening": 1}))
    assert [one.verdict.reason for one in once.paraphrases] == [None, "other_word", None]
    assert once.paraphrases[0].text.endswith("Middle temporal Vol {middle_temporal_vol}.")
    assert once.accepted == 2  # enough, in the first round
    monkeypatch.setattr(module, "OPENINGS", {"report_shows": ("", "")})
    said["report_shows"] = frame.sentence
    copied = paraphrase(llm, brains, frame, knowledge.model_copy(update={"paraphrases_per_opening": 1}))
    assert {one.verdict.reason for one in copied.paraphrases} == {"duplicate"}
