"""Promotion: bring the registry to the state that a decision asks for, from wherever an earlier attempt stopped.

Every step first looks whether it is done. The journal's entry is the commit point: before it, consumers see the old
champion; after it, the new one, whole and tried out, as soon as the alias follows.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.errors import ClinpromptError, DataRejected, Interrupted, ServiceDown
from clinprompt.scratch import ScratchFolder
from registry import keys, links, protocol, quarantine, tracking
from registry.consumer import Champion
from registry.model_folder import FILES_TAG
from registry.protocol.journal import Overtaken, VersionRef
from registry.receipt import CandidateVersion, QuarantinedVersion, Receipt
from registry.request import PromotionRequest
from registry.signing import keep
from registry.verify import verify
from registry.versions import CHAMPION, PREVIOUS, Version, by_alias, describe, find_or_create, mark_refused, run_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from registry.run import Packed


def promote(release: PromotionRequest) -> Receipt:
    """Make the decision's choice the champion and return the receipt; nothing is touched when it is already.

    A choice that was rolled back, in this payload or in another one of the same tuned model, is quarantined: the
    receipt says so and the champion stays.

    Raises:
        DataRejected: the champion is no longer the one that the decision was made against.
        InputCorrupt: what was registered doesn't load, or has other digests.
        Interrupted: this process stood still for so long that another took its turn.
        ServiceDown: the MLflow server does not answer.
    """
    if release.decision.chosen is None:
        return rejected(release)
    name, journal = release.names.production_model, release.names.journal
    settled = protocol.settled_champion(name, journal)
    if settled is not None and _is_there(release, settled):
        return _receipt(release, settled, by_alias(name, PREVIOUS))
    with protocol.opened(name, journal, new=True) as turn:
        current = turn.champion()
        if current is not None and current.tags.get("inputs_digest") == release.inputs_digest:
            if quarantine.is_held(current):  # a rollback that was not finished
                return _quarantined(release, current, current)
            return _receipt(release, current, turn.previous())
        return _replace(turn, release, current)


def _is_there(release: PromotionRequest, champion: Version) -> bool:
    """Whether the release is the champion already."""
    return champion.tags.get("inputs_digest") == release.inputs_digest and not quarantine.is_held(champion)


def _replace(turn: protocol.Turn, release: PromotionRequest, current: Version | None) -> Receipt:
    """Register the release, try it out, and make it the champion, unless it is quarantined."""
    from registry.run import pack

    client, name = tracking.connect(), release.names.production_model
    quarantined_versions = quarantine.held(client, name)
    quarantined = quarantine.match(quarantined_versions, {"model_digest": release.chosen.model_digest})
    if quarantined is not None:
        return _quarantined(release, current, quarantined)
    _check_not_stale(release, current)
    key = keys.for_signing()
    with ScratchFolder("payload") as scratch:
        packed = pack(release, Path(scratch))
        quarantined = quarantine.match(quarantined_versions, packed.facts)
        if quarantined is not None:
            return _quarantined(release, current, quarantined)
        intended = VersionRef(version=None, payload=packed.facts["payload_digest"])
        with turn.intend("promote", current, intended) as change:
            candidate, new = _register(client, release, packed)
            registered = Champion(new)
            with _telling(client, new):
                text = registered.sign(key) if key is not None else None
                with packed.backbone.within_reach():
                    verify(registered, release.sample())
            if text is not None:  # what is refused is not signed for anyone to see
                for version in (candidate, new):  # of the same files
                    keep(client, version, text)
            change.commit(new, _previous(current, new, turn.previous()))
    champion = turn.champion()
    if champion is None or champion.number != new.number:
        raise Overtaken(name)
    return _receipt(release, champion, turn.previous())


@contextmanager
def _telling(client: "MlflowClient", version: Version) -> Iterator[None]:
    """Where a version is refused in the `with` block, its tag tells why, to those who find it in the registry."""
    try:
        yield
    except (ServiceDown, Interrupted):
        raise
    except Exception as error:
        why = str(error) if isinstance(error, ClinpromptError) else f"it can't be tried out: {type(error).__name__}"
        with suppress(ClinpromptError):  # what it was refused for is what to tell
            mark_refused(client, version, why)
        raise
    mark_refused(client, version, None)


def _previous(current: Version | None, new: Version, before: Version | None) -> int | None:
    """The version that is `previous` once `new` is the champion: never one in quarantine."""
    if current is not None and current.number != new.number and not quarantine.is_held(current):
        return current.number
    return before.number if before is not None else None


def rejected(release: PromotionRequest) -> Receipt:
    """The receipt of a rejection: the registry stays as it is."""
    return Receipt(
        dataset=release.dataset,
        verdict="rejected",
        action="rejected",
        reasons=release.decision.reasons,
        model=release.names.production_model,
        version=None,
    )


def _receipt(release: PromotionRequest, current: Version, previous: Version | None) -> Receipt:
    judged_champion = release.decision.champion
    unchanged = judged_champion is not None and judged_champion.version == str(current.number)
    return Receipt(
        dataset=release.dataset,
        verdict="accepted",
        action="unchanged" if unchanged else "promoted",
        model=current.name,
        version=current.number,
        aliases={CHAMPION: current.number, PREVIOUS: previous.number if previous else None},
        candidate=CandidateVersion(
            model=current.tag("candidate_model"), version=current.version_in("candidate_version")
        ),
        model_digest=current.tag("model_digest"),
        payload_digest=current.tag("payload_digest"),
    )


def _quarantined(release: PromotionRequest, current: Version | None, quarantined: Version) -> Receipt:
    """The receipt where the choice was rolled back before: the champion stays."""
    return Receipt(
        dataset=release.dataset,
        verdict="accepted",
        action="quarantined",
        model=release.names.production_model,
        version=current.number if current else None,
        quarantined=QuarantinedVersion(version=quarantined.number, reason=quarantined.tags.get(quarantine.REASON, "")),
    )


def _check_not_stale(release: PromotionRequest, current: Version | None) -> None:
    """The champion must be the one that the decision was made against, or the chosen model in another payload."""
    judged_champion = release.decision.champion
    if current is None:
        fresh = judged_champion is None
    elif current.tag("model_digest") == release.chosen.model_digest:
        fresh = True
    else:
        same = (str(current.number), current.tag("model_digest"))
        fresh = judged_champion is not None and (judged_champion.version, judged_champion.model_digest) == same
    if not fresh:
        then = f"version {judged_champion.version}" if judged_champion else "no champion"
        now = f"version {current.number}" if current else "none"
        raise DataRejected(
            f"The decision is stale: it was made against {then}, and the champion is now {now}. Run `dvc repro` again, "
            "so that the gate compares with the champion of today."
        )


def _register(client: "MlflowClient", release: PromotionRequest, packed: "Packed") -> tuple[Version, Version]:
    """The candidate version and the production version of the release, with its run and its logged model."""
    from clinprompt.data.load import load_card
    from registry import lineage
    from registry.run import log_release

    logged = log_release(client, release, packed)
    card = load_card(release.card)
    about = lineage.about(card, release.record, release.measured)
    tags = logged.facts | {FILES_TAG: logged.files} | lineage.use_tags(card) | links.airflow_tags()
    candidate = find_or_create(client, release.names.candidate_model, logged.uri, logged.run_id, tags, logged.model_id)
    # The candidate may be another promotion's, logged by a run of its own, with another lineage and ids in its files.
    tags = tags | {key: candidate.tags[key] for key in (*packed.facts, FILES_TAG) if key in candidate.tags}
    tags = tags | {"candidate_model": candidate.name, "candidate_version": str(candidate.number)}
    source = f"models:/{candidate.name}/{candidate.number}"
    run_id = run_of(client, candidate)
    production = find_or_create(client, release.names.production_model, source, run_id, tags)
    for version in (candidate, production):
        describe(client, version, lineage.summary(card), about, lineage.use_tags(card))
    return candidate, production
