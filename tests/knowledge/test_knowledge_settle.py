"""What descriptions of a class make of each other: near-duplicates, contradictions, support, and people's decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from clinprompt.data.card import Card
from clinprompt.knowledge.agreement.assertions import Assertion, assertions
from clinprompt.knowledge.checks import judge
from clinprompt.knowledge.review.decisions import Choice, Decision, Decisions, text_digest
from clinprompt.knowledge.settle import Sample, settle
from clinprompt.knowledge.statement import Context
from clinprompt.knowledge.texts import statement_of

BRIGHT = "On T2-weighted images a glioma of the brain is bright."
BRIGHT_TOO = "The tumour of this brain looks hyperintense on T2 scans and holds necrosis."
DARK = "A glioma of the brain appears dark on any T2-weighted image of the head."
DARK_ON_T1 = "This brain tumour is hypointense on T1 scans and infiltrates the white matter."
BLURRED = "The edges of a glioma within the brain are poorly defined on every image."


@dataclass(frozen=True)
class Fake:
    """An encoder that knows angles, in degrees, of some texts; others are at right angles to all."""

    degrees: dict[str, float]
    same: float = 0.9
    name: str = "fake"
    digest: str = "0"
    asked: list[str] = field(default_factory=list)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.extend(texts)
        vectors = np.zeros((len(texts), 2 + len(texts)), np.float32)
        for i, text in enumerate(texts):
            if text in self.degrees:
                angle = np.radians(self.degrees[text])
                vectors[i, :2] = np.cos(angle), np.sin(angle)
            else:
                vectors[i, 2 + i] = 1
        return vectors


def samples(card: Card, *texts: str, class_id: str = "glioma") -> list[Sample]:
    context = Context.of(card)
    return [Sample(class_id, text, judge(statement_of(class_id, text), context)) for text in texts]


def decided(text: str, choice: Choice, class_id: str = "glioma") -> Decisions:
    digest = text_digest(text)
    return {(class_id, digest): Decision(class_id, digest, choice, "a reader", "seen so", text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is dark on T1 and bright on T2.", {("signal", "", "T1", "dark"), ("signal", "", "T2", "bright")}),
        ("On T1 it is dark and on T2 bright.", {("signal", "", "T1", "dark"), ("signal", "", "T2", "bright")}),
        ("It is hyperintense on T2 and FLAIR.", {("signal", "", "T2", "bright"), ("signal", "", "FLAIR", "bright")}),
        ("It has a dark centre and a bright rim.", {("signal", "centre", "", "dark"), ("signal", "rim", "", "bright")}),
        ("It is not well defined.", {("definition", "", "", "blurred")}),
        ("It isn't well defined.", {("definition", "", "", "blurred")}),
        ("It isn’t well defined.", {("definition", "", "", "blurred")}),
        ("It can't be bilateral.", {("laterality", "", "", "one")}),
        ("There is no calcification.", {("calcification", "", "", "absent")}),
        ("On a contrast-enhanced CT it is bilateral.", {("laterality", "", "", "both")}),
        ("The ventricles are enlarged and the hippocampi are shrunken.",
         {("size", "ventricles", "", "larger"), ("size", "hippocampus", "", "smaller")}),
        ("It may be bilateral.", set()),
        ("The margin can be smooth or irregular.", set()),
        ("One half is bright and the other half is dark.", set()),
        ("Unlike the bright cyst, it is round.", set()),
        ("It is not bright.", set()),  # it may be dark, or as bright as its surroundings
    ],
)  # fmt: skip
def test_what_a_sentence_asserts(text: str, expected: set[tuple[str, str, str, str]]) -> None:
    assert assertions(text) == {Assertion(*one) for one in expected}


def test_the_minority_is_rejected_and_other_sequences_contradict_nothing(card: Card) -> None:
    verdicts = settle(samples(card, BRIGHT, DARK, BRIGHT_TOO, DARK_ON_T1, BLURRED))
    assert [verdict.reason for verdict in verdicts] == [None, "contradiction", None, None, None]
    assert [verdict.scores.get("contradiction") for verdict in verdicts] == [1, 2, 1, 0, 0]
    assert [verdict.scores.get("support") for verdict in verdicts] == [2, 1, 2, 1, 1]
    swapped = settle(samples(card, BLURRED, DARK, DARK_ON_T1, BRIGHT_TOO, BRIGHT))
    assert [verdict.reason for verdict in swapped] == [None, "contradiction", None, None, None]


def test_a_tie_is_held_back_for_review(card: Card) -> None:
    verdicts = settle(samples(card, BRIGHT, DARK, BLURRED))
    assert [verdict.reason for verdict in verdicts] == ["undecided", "undecided", None]
    assert [verdict.review for verdict in verdicts] == [*["as many samples say the opposite"] * 2, None]


def test_classes_do_not_vote_on_each_other(card: Card) -> None:
    other = "On T2-weighted images a pituitary tumour of the brain is dark."
    verdicts = settle([*samples(card, BRIGHT), *samples(card, other, class_id="adenoma")])
    assert all(verdict.accepted for verdict in verdicts)


def test_what_too_few_samples_assert_is_unsupported_where_that_is_asked(card: Card) -> None:
    unasserting = "The tumour grows along the white matter and crosses the corpus callosum."
    given = samples(card, BRIGHT, BRIGHT_TOO, BLURRED, unasserting)
    assert all(verdict.accepted for verdict in settle(given))
    assert [verdict.reason for verdict in settle(given, 2)] == [None, None, "unsupported", None]


def test_a_repeated_sample_counts_as_support(card: Card) -> None:
    verdicts = settle(samples(card, BRIGHT, BRIGHT, DARK))
    assert [verdict.reason for verdict in verdicts] == [None, "duplicate", "contradiction"]


def test_the_first_of_near_duplicates_stays_and_opposites_are_none(card: Card) -> None:
    near = "The tumour's margins within this brain can hardly be told on any image."
    far = "A glioma crosses the corpus callosum to reach both hemispheres of the brain."
    encoder = Fake({BLURRED: 0, near: 20, far: 40, BRIGHT: 100, DARK: 102, BRIGHT_TOO: 140})
    verdicts = settle(samples(card, BLURRED, near, far, BRIGHT, BRIGHT_TOO, DARK), encoder=encoder)  # type: ignore[arg-type]
    # `far` is near to `near`, which is not among the accepted.
    assert [v.reason for v in verdicts] == [None, "near_duplicate", None, None, None, "contradiction"]
    assert verdicts[1].scores["near_duplicate"] == pytest.approx(np.cos(np.radians(20)), abs=1e-5)
    assert verdicts[2].scores["near_duplicate"] == pytest.approx(np.cos(np.radians(40)), abs=1e-5)
    alone = settle(samples(card, BLURRED, near))
    assert all(verdict.accepted and "near_duplicate" not in verdict.scores for verdict in alone)


A_MASS = (
    "On T2-weighted images the glioma is a {} irregular mass in the white matter of the brain with edema around it."
)


def test_the_opposite_in_the_same_words_is_no_duplicate(card: Card) -> None:
    """With an encoder and without one."""
    texts = (A_MASS.format("dark"), A_MASS.format("bright"), A_MASS.format("very bright"))
    near = Fake(dict.fromkeys(texts, 0.0))
    for encoder in (None, near):
        verdicts = settle(samples(card, *texts[:2]), encoder=encoder)  # type: ignore[arg-type]
        assert [verdict.reason for verdict in verdicts] == ["undecided", "undecided"]
        assert all(verdict.review for verdict in verdicts)
        verdicts = settle(samples(card, *texts), encoder=encoder)  # type: ignore[arg-type]
        assert [verdict.reason for verdict in verdicts] == ["contradiction", None, "duplicate"]
        decisions = decided(texts[0], "accepted")
        verdicts = settle(samples(card, *texts), 1, encoder, decisions)  # type: ignore[arg-type]
        assert [verdict.reason for verdict in verdicts] == [None, "contradiction", "duplicate"]


def test_what_is_held_against_a_text_that_a_person_rejected_is_no_duplicate(card: Card) -> None:
    first, second, third = (A_MASS.format(word) for word in ("bright", "very bright", "rather bright"))
    given = samples(card, first, second, third)
    assert [verdict.reason for verdict in settle(given)] == [None, "duplicate", "duplicate"]
    verdicts = settle(given, decisions=decided(first, "rejected"))
    assert [verdict.reason for verdict in verdicts] == ["reviewed", None, "duplicate"]
    assert [verdict.scores["duplicate"] for verdict in verdicts[1:]] == [0, pytest.approx(20 / 22)]


def test_an_accepted_text_wins_over_what_shares_its_words(card: Card) -> None:
    good, wrong = A_MASS.format("bright"), A_MASS.format("hypoechoic bright")
    given = samples(card, good, wrong)
    assert [verdict.reason for verdict in settle(given)] == [None, "wrong_modality"]
    verdicts = settle(given, decisions=decided(wrong, "accepted"))
    assert [verdict.reason for verdict in verdicts] == ["duplicate", None]
    both = settle(given, decisions={**decided(wrong, "accepted"), **decided(good, "accepted")})
    assert all(verdict.accepted for verdict in both)


def test_only_what_passed_the_rules_is_encoded(card: Card) -> None:
    encoder = Fake({})
    settle(samples(card, BRIGHT, "Too short.", class_id="glioma"), encoder=encoder)  # type: ignore[arg-type]
    assert encoder.asked == [BRIGHT]


def test_a_persons_decision_comes_before_every_check(card: Card) -> None:
    wrong = "The glioma is hypoechoic and lies beside the liver of this person."
    near = "The tumour's margins within this brain can hardly be told on any image."
    encoder = Fake({BLURRED: 0, near: 5})
    texts = (wrong, BLURRED, near, BRIGHT, BRIGHT_TOO, DARK)
    plain = settle(samples(card, *texts), encoder=encoder)  # type: ignore[arg-type]
    assert [v.reason for v in plain] == ["wrong_modality", None, "near_duplicate", None, None, "contradiction"]
    decisions = {**decided(wrong, "accepted"), **decided(DARK, "accepted"), **decided(near, "accepted")}
    verdicts = settle(samples(card, *texts), 1, encoder, {**decisions, **decided(BRIGHT, "rejected")})  # type: ignore[arg-type]
    # The accepted one among near-duplicates stays, and what contradicts an accepted one goes.
    assert [v.reason for v in verdicts] == [None, "near_duplicate", None, "reviewed", "contradiction", None]
    assert verdicts[0].reviewed == "accepted by a reader: seen so"
    assert verdicts[3].reviewed == "rejected by a reader: seen so"
    assert verdicts[0].scores["wrong_modality"] == plain[0].scores["wrong_modality"]
    assert not any(verdict.review for verdict in verdicts if verdict.reviewed)


def test_of_copies_that_a_person_has_accepted_the_first_stays(card: Card) -> None:
    verdicts = settle(samples(card, BLURRED, BLURRED), decisions=decided(BLURRED, "accepted"))
    assert [verdict.reason for verdict in verdicts] == [None, "duplicate"]


def test_a_decision_holds_for_its_class_alone(card: Card) -> None:
    verdicts = settle(samples(card, BRIGHT), decisions=decided(BRIGHT, "rejected", class_id="adenoma"))
    assert verdicts[0].accepted


def test_one_word_makes_a_rejection_worth_a_look(card: Card) -> None:
    (verdict,) = settle(samples(card, "The glioma is a hypoechoic mass within the white matter of the brain."))
    assert (verdict.reason, verdict.review) == ("wrong_modality", "rejected for one word")
