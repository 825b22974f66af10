"""How often a test split has decided, kept beside the registry's journal: one small object for each decision.

A decision is counted before it is made, by an object that is created on the condition that there is none with its
number. What was counted keeps its number and its share of alpha: whoever decides the same again, at any time, finds
both, and decides the same.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from clinprompt.errors import BadParams, InputCorrupt, Interrupted
from clinprompt.evaluation.budget import HeldOut, Use, share
from clinprompt.evaluation.decision import ChampionRef, DecisionRecord
from clinprompt.files import sha256_bytes, to_json
from clinprompt.params import BudgetParams
from clinprompt.records import RecordPart
from registry import links
from registry.protocol.location import shared_place, store_at
from registry.protocol.store import Store
from registry.versions import check_name

FORMAT = 1
FOLDER = "test-sets"  # beside the models' journals: a store of its own, as the gate needs no right to those
_TRIES = 20
Verdict = Literal["accepted", "rejected"]


class Counted(RecordPart):
    """A decision on a test split.

    Attributes:
        number: from 1 on, without a gap.
        id: of the attempt; unique.
        registered: the production model that it is about.
        candidate, predictions, model, settings: the challenger's name, and the digests that tell decisions apart.
        champion: the digest of the tuned model that it was compared with.
        alpha: what the decision has of it.
        verdict: None until it is known.
        record: the digest of the record that it came to; None until that is known.
        by, at: who asked, and when (UTC).
    """

    number: int
    id: str
    registered: str
    candidate: str
    predictions: str
    model: str
    settings: str
    champion: str | None
    alpha: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    by: str
    at: str
    verdict: Verdict | None = None
    record: str | None = None

    def is_of(self, use: Use, champion: str | None) -> bool:
        """Whether it is this decision: of the same predictions by the same rules beside the same champion, or beside
        whichever champion there was before the candidate was it."""
        same = (self.predictions, self.settings) == (use.predictions, use.settings)
        return same and champion in (self.champion, use.model)


@dataclass(frozen=True)
class Ledger:
    """The decisions on test splits that are counted in a store, for the production model `name`."""

    store: Store
    name: str

    def claim(self, use: Use, champion: ChampionRef | None) -> HeldOut:
        """Which decision on its test split this is; counted where it is a new one.

        Args:
            champion: what the challenger is compared with.

        Raises:
            InputCorrupt: an object is missing or damaged.
            Interrupted: others were faster each time.
            ServiceDown: the store does not answer.
        """
        for _ in range(_TRIES):
            before = list(self._counted(use.test_set))  # read once: what is counted after it has this one's number
            known = _known(before, use, _digest(champion))
            if known is not None:
                return known
            number = len(before) + 1
            inherited = before[-1].alpha if before and before[-1].verdict == "accepted" else 0.0
            counted = Counted(
                number=number,
                id=uuid.uuid4().hex,
                registered=self.name,
                candidate=use.candidate,
                predictions=use.predictions,
                model=use.model,
                settings=use.settings,
                champion=_digest(champion),
                alpha=use.alpha if use.spending == "none" else share(use.alpha, number, inherited),
                by=links.requester(),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            self.store.create(_key(use.test_set, number), _bytes(counted))  # where another was faster: look again
        raise Interrupted("Others count their decisions on the same test split all the time; run it again.")

    def look(self, use: Use, champion: ChampionRef | None) -> HeldOut | None:
        """The same without counting: None where it is a new decision.

        Raises:
            InputCorrupt, ServiceDown: as `claim`.
        """
        return _known(list(self._counted(use.test_set)), use, _digest(champion))

    def close(self, record: DecisionRecord) -> None:
        """Write down what a counted decision came to, for the share of the next one; the first to say so is right.

        Raises:
            InputCorrupt, ServiceDown: as `claim`.
        """
        found = self._found(record)
        if found is None:
            return
        counted, key, etag = found
        known = {"verdict": counted.verdict or record.verdict, "record": counted.record or _digest_of(record)}
        if (closed := counted.model_copy(update=known)) != counted:
            self.store.replace(key, _bytes(closed), etag)

    def knows(self, record: DecisionRecord) -> bool:
        """Whether a record is the one that a counted decision came to, to the last bit.

        Raises:
            InputCorrupt, ServiceDown: as `claim`.
        """
        found = self._found(record)
        return found is not None and found[0].record == _digest_of(record)

    def _found(self, record: DecisionRecord) -> tuple[Counted, str, str] | None:
        """What is counted under a record's number, its key and its tag in the store."""
        if record.held_out is None or record.held_out.number is None:
            return None
        key = _key(record.held_out.digest, record.held_out.number)
        stored = self.store.read(key)
        return (_parsed(stored.content, key), key, stored.etag) if stored is not None else None

    def told(self) -> list[dict[str, Any]]:
        """Of each test split on which this model's candidates were decided: its digest, and all decisions on it.

        Raises:
            InputCorrupt, ServiceDown: as `claim`.
        """
        keys = self.store.list("")
        splits = {digest: list(self._counted(digest)) for digest in sorted({key.partition("/")[0] for key in keys})}
        return [
            {"test_set": digest, "decisions": [one.model_dump(exclude={"id", "record"}) for one in counted]}
            for digest, counted in splits.items()
            if any(one.registered == self.name for one in counted)
        ]

    def _counted(self, test_set: str) -> Iterator[Counted]:
        """The decisions on a test split, in their order."""
        for _ in range(_TRIES):  # a folder that is written to while it is listed may show a number without the last
            keys = self.store.list(f"{test_set}/")
            wanted = [_key(test_set, number) for number in range(1, len(keys) + 1)]
            if keys == wanted:
                break
        for key, right in zip(keys, wanted, strict=True):
            stored = self.store.read(key)
            if key != right or stored is None:
                raise InputCorrupt(
                    f"The decisions on the test split {test_set[:12]} are numbered without a gap, and {right[-11:-5]} "
                    f"is missing in {FOLDER} of the registry's journal; put its back-up in its place."
                )
            yield _parsed(stored.content, key)


def ledger(name: str, journal: str | None, budget: BudgetParams) -> Ledger | None:
    """Where the decisions for the production model `name` are counted; None where nothing depends on the count.

    Args:
        journal: `registry.journal` of params.yaml.

    Raises:
        BadParams: there is no such place.
        ServiceDown: the MLflow server does not answer.
    """
    return ledger_at(name, journal) if budget.counts else None


def decisions(name: str, *, journal: str | None = None) -> list[dict[str, Any]]:
    """Of each test split that decided on candidates for the production model `name`: its digest, and all decisions.

    Args:
        journal: `registry.journal` of params.yaml.

    Raises:
        BadParams: no model can have this name, or there is no place in which decisions are counted.
        InputCorrupt, ServiceDown: as `Ledger.claim`.
    """
    return ledger_at(check_name(name), journal).told()


def ledger_at(name: str, journal: str | None) -> Ledger:
    """The same, whether anything depends on the count or not.

    Raises:
        BadParams, ServiceDown: as `ledger`.
    """
    where = shared_place(journal)
    if where is None:
        raise BadParams(
            "No place is named in which the decisions on the test split are counted: set registry.journal in "
            "params.yaml to s3://bucket/prefix or a folder, or gate.budget to {decisions: null, spending: none}."
        )
    return Ledger(store_at(f"{where.rstrip('/')}/{FOLDER}"), name)


def _known(counted: Sequence[Counted], use: Use, champion: str | None) -> HeldOut | None:
    """What is counted of a decision, or why it is not; None where it is a new one."""
    told = partial(HeldOut, digest=use.test_set, images=use.images, at_most=use.at_most)
    for known in reversed(counted):
        if known.is_of(use, champion):
            return told(number=known.number, alpha=known.alpha)
    if use.model == champion:
        return told(number=None, alpha=use.alpha)
    if use.at_most is not None and len(counted) >= use.at_most:
        return told(number=None, alpha=0.0, spent=True)
    return None


def _digest(champion: ChampionRef | None) -> str | None:
    return champion.model_digest if champion is not None else None


def _digest_of(record: DecisionRecord) -> str:
    return sha256_bytes(to_json(record.to_json()).encode())


def _key(test_set: str, number: int) -> str:
    return f"{test_set}/{number:06d}.json"


def _bytes(counted: Counted) -> bytes:
    return to_json({"format": FORMAT, **counted.model_dump()}).encode()


def _parsed(content: bytes, key: str) -> Counted:
    try:
        value = json.loads(content)
        if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
            raise ValueError
        counted = Counted.model_validate(value)
        if not key.endswith(_key("", counted.number)):
            raise ValueError
    except (ValueError, RecursionError):
        raise InputCorrupt(
            f"{FOLDER}/{key} in the registry's journal is no decision on a test split that this release reads; put its "
            "back-up in its place."
        ) from None
    return counted
