"""How well do the checks of descriptions tell true sentences from planted false ones?

    python -m benchmarks.knowledge [--half tuning] [--errors]

The sentences are those of knowledge_gold.yaml; half of them, by the digest of their text, are for making the rules, and
the numbers to report are of the other half.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clinprompt.data.load import load_card
from clinprompt.files import sha256_bytes
from clinprompt.knowledge.checks import CHECKS, judge
from clinprompt.knowledge.statement import Assessment, Context
from clinprompt.knowledge.terms.of_card import terms_of
from clinprompt.knowledge.texts import statement_of
from clinprompt.schema import read_yaml

ROOT = Path(__file__).parents[1]
GOLD = Path(__file__).with_name("knowledge_gold.yaml")
KINDS = ("true", "sibling", "modality", "organ", "negation", "invented", "off_topic", "injection")
OF_FORM = ("unfinished", "length", "language", "markup", "refusal", "echo", "repetition", "duplicate")
SWAPS = ("sibling", "modality", "organ")
HALVES = ("tuning", "held_out")


@dataclass(frozen=True)
class Judged:
    """A sentence of the gold set, and what the checks say of it."""

    card: str
    class_id: str
    kind: str
    text: str
    verdict: Assessment

    @property
    def caught(self) -> bool:
        """Whether a check of content rejects it; one that is merely too short is not found out."""
        scores = self.verdict.scores
        return any(check.name not in OF_FORM and not check.passes(scores[check.name]) for check in CHECKS)

    @property
    def half(self) -> str:
        """Which half of the set it is in."""
        return half_of(self.text)


def half_of(text: str) -> str:
    """By a digest, so that a sentence that is added or changed moves no other."""
    return HALVES[int(sha256_bytes(text.encode())[0], 16) % 2]


def gold() -> Iterator[Judged]:
    """All sentences, each judged by itself: near-duplicates are not what this measures."""
    for name, of_card in read_yaml(GOLD).items():
        context = Context.of(load_card(ROOT / "datasets" / f"{name}.yaml"))
        for class_id, kinds in of_card["sentences"].items():
            for kind, texts in kinds.items():
                # YAML reads the key as a boolean
                kind_name = "true" if kind is True else kind
                for text in texts:
                    context.accepted.clear()
                    verdict = judge(statement_of(class_id, text), context)
                    yield Judged(name, class_id, kind_name, text, verdict)


def moved(half: str) -> Iterator[Judged]:
    """The true sentences of a half, each put under other classes: swaps that nobody has worded.

    `as_it_is`: under each sibling. `renamed`: likewise, with the sibling's name for its own, where neither is the class
    without disease; what is true of both stays true, so that not all of them are to be rejected. `card`: under the
    first class of each card of another modality and organ.
    """
    cards = {name: load_card(ROOT / "datasets" / f"{name}.yaml") for name in read_yaml(GOLD)}
    contexts = {name: Context.of(card) for name, card in cards.items()}
    for row in [row for row in gold() if row.half == half and row.kind == "true"]:
        card = cards[row.card]
        own = next(info for info in card.classes if info.id == row.class_id)
        moves: list[tuple[str, str, str, str]] = []
        for info in card.classes:
            if info.id != row.class_id:
                moves.append((row.card, info.id, "as_it_is", row.text))
                normal = {info.id, own.id} & {c for c in card.class_ids if terms_of(card).is_normal(c)}
                if own.name.lower() in row.text.lower() and not normal:
                    text = re.sub(re.escape(own.name), info.name, row.text, flags=re.IGNORECASE)
                    moves.append((row.card, info.id, "renamed", text))
        for name, other in cards.items():
            if not {other.modality, other.organ} & {card.modality, card.organ}:
                moves.append((name, other.classes[0].id, "card", row.text))
        for name, class_id, kind, text in moves:
            contexts[name].accepted.clear()
            yield Judged(name, class_id, kind, row.text, judge(statement_of(class_id, text), contexts[name]))


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share."""
    if trials == 0:
        return 0.0, 1.0
    share, square = successes / trials, z * z / trials
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return middle - half, middle + half


def shown(successes: int, trials: int) -> str:
    """A share in per cent with its interval."""
    low, high = wilson(successes, trials)
    return f"{successes}/{trials} = {100 * successes / max(trials, 1):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=HALVES, default="held_out")
    parser.add_argument("--errors", action="store_true", help="print the sentences that were judged wrongly")
    options = parser.parse_args()
    rows = [row for row in gold() if row.half == options.half]
    rejected = [row for row in rows if not row.verdict.accepted]
    planted = [row for row in rejected if row.kind != "true"]
    swaps = [row for row in rows if row.kind in SWAPS]
    print(f"{options.half}: {len(rows)} sentences\n")
    print("| kind | rejected | of these by checks of content | first reasons |\n| --- | --- | --- | --- |")
    for kind in KINDS:
        of_kind = [row for row in rows if row.kind == kind]
        reasons = Counter(row.verdict.reason for row in of_kind if row.verdict.reason)
        listed = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        caught = shown(sum(row.caught for row in of_kind), len(of_kind))
        print(f"| {kind} | {shown(sum(r in rejected for r in of_kind), len(of_kind))} | {caught} | {listed} |")
    print(f"\nrecall on swaps of sibling, modality, organ: {shown(sum(r in rejected for r in swaps), len(swaps))}")
    print(f"  by checks of content alone: {shown(sum(row.caught for row in swaps), len(swaps))}")
    print(f"recall on all planted: {shown(len(planted), sum(r.kind != 'true' for r in rows))}")
    print(f"precision of rejections: {shown(len(planted), len(rejected))}")
    print("\ntrue sentences under other classes, rejected by checks of content:")
    of_moved = list(moved(options.half))
    for kind in ("as_it_is", "renamed", "card"):
        of_kind = [row.caught for row in of_moved if row.kind == kind]
        print(f"  {kind}: {shown(sum(of_kind), len(of_kind))}")
    if options.errors:
        for row in rows:
            if not (row.verdict.accepted if row.kind == "true" else row.caught):
                print(f"{row.card} {row.class_id} {row.kind} [{row.verdict.reason}]: {row.text}")


if __name__ == "__main__":
    main()
