"""`receipt.json`: what a promotion did."""

from typing import ClassVar, Literal

from clinprompt.records import Record, RecordPart


class CandidateVersion(RecordPart):
    """The version of the candidates' registered model that the production version was made from."""

    model: str
    version: int


class QuarantinedVersion(RecordPart):
    """The version in which the choice was rolled back before, and why."""

    version: int
    reason: str


class Receipt(Record):
    """The whole of a `receipt.json`.

    Attributes:
        model: the production model's name in the registry.
        version: the champion's; None where there is none, or nobody looked.
        reasons: of a rejection.
        aliases, candidate, model_digest, payload_digest: of the champion, where the choice is it now.
        quarantined: where the choice was kept out.
    """

    STAGE: ClassVar[str] = "promote"

    dataset: str
    verdict: Literal["accepted", "rejected"]
    action: Literal["promoted", "unchanged", "rejected", "quarantined"]
    model: str
    version: int | None
    reasons: list[str] | None = None
    aliases: dict[str, int | None] | None = None
    candidate: CandidateVersion | None = None
    model_digest: str | None = None
    payload_digest: str | None = None
    quarantined: QuarantinedVersion | None = None
