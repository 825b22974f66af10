"""How often one test split may decide, and what of alpha each decision on it gets. Imports nothing heavy.

Each look at the same test patients is one more chance for a bad model to pass by luck. The k-th decision therefore gets
the share 1 / (k (k + 1)) of `gate.alpha`, and what an accepted one had goes on to the next: the fallback procedure
(Wiens 2003), with weights for a list without an end (Tian and Ramdas 2021). The shares add up to 1, so that over all
decisions together a bad model passes with at most alpha.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clinprompt.files import sha256_bytes
from clinprompt.records import RecordPart


@dataclass(frozen=True)
class Use:
    """A decision that is to be made on a test split; equal ones are the same decision, and count once.

    Attributes:
        test_set: the digest of the split's images and labels.
        images: in it.
        candidate: the challenger's name.
        predictions, model: SHA-256 of the challenger's predictions, and of its tuned model.
        settings: that of the manifest, the card, the rules and whatever else of params.yaml decides.
        alpha: `gate.alpha`.
        spending, at_most: those of `gate.budget`.
    """

    test_set: str
    images: int
    candidate: str
    predictions: str
    model: str
    settings: str
    alpha: float
    spending: str
    at_most: int | None


class HeldOut(RecordPart):
    """Which decision on its test split one is.

    Attributes:
        digest, images: of the split.
        number: from 1 on; None where it does not count: of the champion itself, or where the budget is spent.
        at_most: how many there may be; None: any number.
        alpha: of each rule's one-sided test.
        spent: whether the split decides nothing more.
    """

    digest: str
    images: int
    number: int | None
    at_most: int | None
    alpha: float
    spent: bool = False

    @property
    def sentence(self) -> str:
        """The same in words."""
        if self.spent:
            times = "once" if self.at_most == 1 else f"{self.at_most} times"
            return (
                f"this test split has decided {times}, which is all that gate.budget.decisions allows, so "
                "the champion stays until there is another test split"
            )
        level = f"each rule is tested at alpha {self.alpha:.3g}"
        if self.number is None:
            return f"it is the champion itself, so this is no new decision on this test split, and {level}"
        of = f" of at most {self.at_most}" if self.at_most is not None else ""
        return f"this is decision {self.number}{of} on this test split, so {level}"


Budget = Callable[[Use], HeldOut | None]  # which decision it is; None where nobody has counted it


def share(alpha: float, number: int, inherited: float = 0.0) -> float:
    """What the decision `number` gets of `alpha`.

    Args:
        inherited: what the decision before had, where that was accepted.
    """
    return min(alpha / (number * (number + 1)) + inherited, alpha * number / (number + 1))


def split_digest(images: Iterable[tuple[str, str]]) -> str:
    """That of a test split, from the ids and labels of its images, in any order."""
    return sha256_bytes("\n".join(sorted(f"{image} {label}" for image, label in images)).encode())
