"""What the reasons for a rejection mean, in a few words for people."""

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    "unfinished": "no whole sentence",
    "length": "too short or too long",
    "language": "no English prose",
    "markup": "markup or code",
    "refusal": "declines, or speaks of its writer",
    "order": "an order to its reader",
    "echo": "repeats the question",
    "repetition": "repeats itself",
    "duplicate": "nearly the words of one accepted before",
    "near_duplicate": "says what one accepted before says",
    "other_class": "speaks of another class",
    "unnamed": "does not speak of its class",
    "wrong_modality": "fits another modality",
    "wrong_organ": "fits another organ",
    "invented": "an invented sign",
    "unrelated": "not about an image of this kind",
    "impossible": "what its class can't show",
    "sign_of_sibling": "typical of another class",
    "denied": "denies its class",
    "contradiction": "more samples say the opposite",
    "undecided": "as many samples say the opposite; waits for a person",
    "ungrounded": "far from the images of its class",
    "unsupported": "too few samples say so",
    "reviewed": "rejected by a person",
    # of paraphrases
    "placeholders": "not every placeholder once",
    "swapped": "a name beside another's value",
    "number": "a number of its own",
    "other_word": "words that a report does not hold",
}


def told(reason: str) -> str:
    """A reason in a few words; one that is not known here by its name."""
    return REASONS.get(reason, reason.replace("_", " "))
