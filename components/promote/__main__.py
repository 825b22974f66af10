"""promote: register the gate's choice and make it the champion.

The stage runs on every `dvc repro`, so what is heavy is imported only when there is something to register.
"""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import registry
from clinprompt.contract.candidates import CandidateId
from clinprompt.errors import InputCorrupt
from clinprompt.evaluation.contradictions import contradiction
from clinprompt.evaluation.decision import ChosenCandidate, DecisionRecord
from clinprompt.evaluation.judge import reference, told
from clinprompt.evaluation.metrics_record import Metrics
from clinprompt.params import BackboneParams, CandidatesParams, EvaluationParams, RegistryParams, ValidationParams
from clinprompt.tuned.artifact import model_digest
from components.judged import judged
from components.runner import Job, run
from components.serving import backbone_files, behaviour_of
from registry import held_out, reproduced
from registry.links import run_url
from registry.promote import promote, rejected
from registry.receipt import Receipt
from registry.request import PromotionRequest
from registry.verify import Sample

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Promote what the decision chose, and write the receipt."""
    decision = DecisionRecord.read(job.inputs["decision"])
    release = _release(job, decision)
    before = registry.champion(release.names.production_model)
    if decision.chosen is not None:
        _check_model(release.model, decision.chosen.model_digest)
    _check_decision(job, decision, before)
    if decision.chosen is not None:
        _check_metrics(job, decision.chosen, release.metrics)
        if before is None or before.model_digest != decision.chosen.model_digest:
            _check_behaviour(job, decision.chosen)
            reproduced.check(release.dataset, release.names, decision.chosen)
        receipt = promote(release)
    else:
        receipt = rejected(release)
    receipt.write(job.outputs["receipt"])
    # The receipt of a promotion stays as it is when nothing changes, so that nothing that reads it runs again.
    same = receipt.action == "promoted" and before is not None and before.version == receipt.version
    action = "unchanged" if same else receipt.action
    log.info("promote: %s: %s: %s.", receipt.model, action, _outcome(receipt))
    facts = {"dataset": release.dataset, "action": action, "model": receipt.model, "version": receipt.version}
    page = None
    if receipt.version is not None and receipt.action in ("promoted", "unchanged"):
        page = run_url(receipt.model, receipt.version)
    return facts | ({"run_url": page} if page else {})


def _outcome(receipt: Receipt) -> str:
    champion = f"version {receipt.version} is the champion" if receipt.version else "there is no champion"
    if receipt.action == "rejected":
        return "the registry stays as it is"
    held = receipt.quarantined
    if held is not None:
        lift = f"python -m registry unquarantine {receipt.model} --version {held.version} --reason TEXT"
        return f"it was rolled back as version {held.version} ({held.reason}), and {champion}; to let it in: {lift}"
    return champion


def _check_decision(job: Job, decision: DecisionRecord, champion: registry.Champion | None) -> None:
    """Decide again: the file alone neither promotes a model nor tells of a rejection.

    Beside the champion that the decision was made against, where it still is that; else by the predictions alone. A
    decision that another champion has overtaken is stale, which the promotion itself finds and tells.
    """
    current = reference(champion) if champion else None
    files, names = replace(judged(job), probe=told(decision)), job.params(RegistryParams).of(job.arguments["dataset"])
    ledger = held_out.ledger(names.production_model, names.journal, files.gate.budget)
    made = partial(ledger.look, champion=decision.champion) if ledger is not None else None
    now = files.decide(champion if decision.champion == current else None, made)
    other = [key for key in ("inputs", "params") if getattr(now, key) != getattr(decision, key)]
    problem = f"it was made from other {' and '.join(other)}" if other else contradiction(decision, now)
    if problem is not None:
        raise InputCorrupt(
            f"{job.inputs['decision']} is not what the gate decides now: {problem}. Nothing was promoted; "
            "delete it and run `dvc repro`, so that the gate decides again."
        )


def _check_behaviour(job: Job, chosen: ChosenCandidate) -> None:
    """Try the choice out again, where rules ask for it: the file alone tells of no behaviour, either."""
    from clinprompt.data.dataset import Dataset
    from clinprompt.evaluation.candidates import Listed, load_candidate
    from clinprompt.evaluation.rules import parse_rules, trial_of

    files = judged(job)
    rules = parse_rules(files.gate.listed)
    trial = trial_of(rules)
    if not trial:
        return
    dataset = Dataset.open(files.card, files.manifest, files.images)
    listed = Listed(_listed(job, chosen), chosen.method, chosen.model_digest)
    candidate = load_candidate(listed, files.evaluations, dataset)
    again = partial(behaviour_of(job), candidate)
    found = again(trial)
    problem = next((problem for rule in rules if (problem := rule.still_fails(found, again)) is not None), None)
    if problem is not None:
        raise InputCorrupt(
            f"{chosen.folder} does not behave as the decision says: {problem}. Nothing was promoted; delete "
            f"{job.inputs['decision']} and run `dvc repro`, so that the gate decides again."
        )


def _check_metrics(job: Job, chosen: ChosenCandidate, metrics: Path) -> None:
    """Measure the choice again: what is registered beside it must be what its predictions give."""
    from clinprompt.data.dataset import Dataset
    from clinprompt.evaluation.summary import measure_candidate
    from clinprompt.evaluation.table import read_predictions

    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    table = job.inputs["evaluations"] / chosen.folder / "predictions.parquet"
    card = dataset.card
    frame, about = read_predictions(table, tuple(card.class_ids), tuple(card.novel_ids))
    if Metrics.read(metrics) != measure_candidate(frame, about, chosen.method, dataset, job.params(EvaluationParams)):
        raise InputCorrupt(
            f"{metrics} is not what {table} gives. Nothing was promoted; delete it and run `dvc repro`, so that the "
            "candidate is measured again."
        )


def _release(job: Job, decision: DecisionRecord) -> PromotionRequest:
    dataset, names = job.arguments["dataset"], job.params(RegistryParams)
    folder = job.inputs["models"] / (str(_listed(job, decision.chosen)) if decision.chosen else "")
    return PromotionRequest(
        dataset=dataset,
        names=names.of(dataset),
        params=job.params_file,
        decision=decision,
        decision_file=job.inputs["decision"],
        card=job.inputs["card"],
        model=folder,
        descriptions=job.inputs["descriptions"],
        manifest=job.inputs["manifest"],
        metrics=job.inputs["metrics"] / f"{folder.name}.json",
        max_pixels=job.params(ValidationParams).max_pixels,
        backbone=lambda: backbone_files(job.params(BackboneParams)),
        sample=lambda: _sample(job, folder.name),
    )


def _listed(job: Job, chosen: ChosenCandidate) -> CandidateId:
    """The choice among the candidates of params.yaml: its folder is theirs, whatever the file says."""
    for candidate in job.params(CandidatesParams).ids:
        if str(candidate) == chosen.folder:
            return candidate
    raise InputCorrupt(
        f"{job.inputs['decision']} chooses {chosen.folder!r}, which is no candidate of params.yaml; run `dvc repro`."
    )


def _check_model(folder: Path, expected: str) -> None:
    if model_digest(folder) != expected:
        raise InputCorrupt(f"{folder} is not the model that the gate chose ({expected[:12]}…); run `dvc repro`.")


def _sample(job: Job, candidate: str) -> Sample:
    """The first test image of each class, with the probabilities that the gate judged."""
    from clinprompt.data.dataset import Dataset, read_image
    from clinprompt.evaluation.table import read_predictions

    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    firsts = dataset.split("test").drop_duplicates("label")
    classes, novel = tuple(dataset.card.class_ids), tuple(dataset.card.novel_ids)
    frame, _ = read_predictions(job.inputs["evaluations"] / candidate / "predictions.parquet", classes, novel)
    told = frame[frame["split"] == "test"].set_index("path").loc[firsts["path"], [f"p_{name}" for name in classes]]
    return Sample([read_image(item) for item in dataset.items(firsts)], told.to_numpy())


if __name__ == "__main__":
    run(__file__, work)
