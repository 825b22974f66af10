"""gate: decide whether the best candidate may be promoted.

The stage runs on every `dvc repro`, so what is heavy is imported only when a decision has to be made.
"""

import logging
import os
from dataclasses import replace
from functools import partial
from typing import Any

import registry
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.variables import GATE_EXIT_CODE
from clinprompt.errors import BadParams, NotTrained, ServiceDown
from clinprompt.evaluation.contradictions import contradiction
from clinprompt.evaluation.decision import ChampionRef, DecisionRecord, earlier_decision
from clinprompt.evaluation.judge import Judged, reference, told
from clinprompt.evaluation.record_decision import input_digests
from clinprompt.params import RegistryParams
from components.judged import judged
from components.runner import Job, run
from components.serving import behaviour_of
from registry import held_out
from registry.candidates import log_candidates

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Look whether the record on disk still holds, and follows from the predictions; if not, decide anew."""
    files = judged(job)
    _check_trained(files)
    names = job.params(RegistryParams).of(files.dataset)
    champion = registry.champion(names.production_model)
    ledger = held_out.ledger(names.production_model, names.journal, files.gate.budget)
    current = reference(champion) if champion else None
    record = earlier_decision(job.outputs["decision"])
    folders = [str(candidate) for candidate in files.candidates.ids]
    inputs = input_digests(files.card, files.manifest, files.models, files.evaluations, folders)
    if record is not None and record.still_holds(inputs, files.params, current):
        made = partial(ledger.look, champion=record.champion) if ledger is not None else None
        # The champion is not asked again about a rejection that was written down when it was made.
        known = ledger is not None and ledger.knows(record)
        beside = champion if record.champion == current and not known else None
        problem = contradiction(record, replace(files, probe=told(record)).decide(beside, made))
        if problem is None:
            _close(ledger, record)
            log.info("gate: nothing to do: the decision on disk still holds.")
            _log_candidates(job)
            return _result(record, current, changed=False)
        log.warning("gate: %s: %s; it is made anew.", job.outputs["decision"], problem)
    counted = partial(ledger.claim, champion=current) if ledger is not None else None
    record = replace(files, probe=behaviour_of(job)).decide(champion, counted)
    record.write(job.outputs["decision"])
    _close(ledger, record)
    _log_candidates(job)
    return _result(record, current, changed=True)


def _close(ledger: held_out.Ledger | None, record: DecisionRecord) -> None:
    """Write down beside the count what the decision came to; a crash before it is made good by the next run."""
    if ledger is not None:
        ledger.close(record)


def _check_trained(files: Judged) -> None:
    """Whether there is someone to judge, and whoever must be there.

    Raises:
        NotTrained: no candidate could be trained, or not all of them and all are required.
    """
    missing, required = files.not_trained(), files.candidates.all_required
    if missing and (required or len(missing) == len(files.candidates.ids)):
        whom = "not all candidates, which candidates.all_required asks for," if required else "no candidate"
        told = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise NotTrained(f"{files.dataset}: {whom} could be trained, so nothing was decided: {told}.")


def _log_candidates(job: Job) -> None:
    """Log each candidate to MLflow. The decision is on disk by now, and is not lost where that can't be done."""
    experiment = job.params(RegistryParams).experiment.format(dataset=job.arguments["dataset"])
    try:
        log_candidates(experiment, job.outputs["decision"], job.inputs["models"])
    except (ServiceDown, BadParams) as error:
        log.warning("gate: the candidates are not in MLflow; the next run tries again. %s", error)


def _result(record: DecisionRecord, champion: ChampionRef | None, *, changed: bool) -> dict[str, Any]:
    digest = record.chosen and record.chosen.model_digest
    log.info("%s: %s.", record.verdict.upper(), "; ".join(record.reasons))
    facts: dict[str, Any] = {
        "dataset": record.dataset,
        "verdict": record.verdict,
        "chosen": record.chosen and record.chosen.folder,
        "already_champion": digest is not None and champion is not None and champion.model_digest == digest,
        "reasons": record.reasons,
        "changed": changed,
    }
    if not record.accepted and os.environ.get(GATE_EXIT_CODE) == "1":
        facts["exit_code"] = int(ExitCode.GATE_REJECTED)
    return facts


if __name__ == "__main__":
    run(__file__, work)
