"""The plan of a run, made by its first task: release, code, params, candidates."""

import logging
from pathlib import Path
from typing import Any

from clinprompt.contract.params_schema import knowledge_of, method_names
from clinprompt.contract.tasks import PartitionKey
from clinprompt.errors import BadParams, InputMissing
from clinprompt.evaluation.rules import parse_rules, trial_of
from clinprompt.params import GateParams
from clinprompt.schema import read_yaml
from workspace.decisions import pin
from workspace.project import card_file, code_digest, lock_texts, project_root, run_params
from workspace.records import entries_of, latest_record, plan_of, read_record
from workspace.releases import find_release, list_releases
from workspace.store import Store
from workspace.task import Candidate, Plan, PlanTask, PromotionTask, SweepTask

log = logging.getLogger(__name__)


def plan(task: PlanTask, store: Store) -> Plan:
    """Make the plan of a run on a dataset's release.

    Only the newest release is promoted with `promote: auto`, so that running old ones again changes nothing for
    those who use the champion. Where a second training is asked for first, none is: a run whose promotion was refused
    would not be recorded, and that training takes the record.

    Raises:
        BadParams: no such dataset, an override without a key, a rule that the gate can't hold anybody to.
        InputMissing: no such release.
    """
    if task.promote not in ("auto", "never"):
        raise BadParams(f"promote must be auto or never, found {task.promote!r}.")
    root = project_root()
    card_file(root, task.dataset)
    release = find_release(store, task.dataset, task.release)
    newest = list_releases(store, task.dataset)[-1].name == release.name
    overrides = _with_candidates(task, root)
    _, params = run_params(root, task.dataset, overrides)
    _check_rules(params.gate)
    settings, retrained_first = params.candidates, params.registry.reproduce == "required"
    candidates = [Candidate(candidate=c.name, seed=c.seed, taught=settings.is_taught(c.name)) for c in settings.ids]
    previous = latest_record(store, task.dataset, release.name) or latest_record(store, task.dataset, None)
    decisions = pin(store, root, task.dataset)
    run_plan = Plan(
        dataset=task.dataset,
        release=release.name,
        digest=release.digest,
        size=release.size,
        files=release.files,
        code=code_digest(root),
        images=task.images,
        overrides=overrides,
        candidates=candidates,
        decisions=decisions,
        locks=lock_texts(root, params, decisions),
        previous=previous,
        promote=newest and task.promote == "auto" and not retrained_first,
        approval=params.registry.approval == "required",
    )
    if not newest:
        log.info("plan: %s is not the newest release: it is run and recorded, not promoted.", run_plan.partition)
    elif retrained_first:
        log.info(
            "plan: %s is run and recorded, not promoted: registry.reproduce asks for a second training first "
            "(`python -m workspace checkout`, then `python -m registry promote %s --reproduce`).",
            run_plan.partition,
            task.dataset,
        )
    return run_plan


def sweep(task: SweepTask, store: Store) -> list[str]:
    """The releases that no run has recorded yet: of each dataset with a card the newest, all, or those named."""
    cards = sorted(path.stem for path in (project_root() / "datasets").glob("*.yaml"))
    names = [task.dataset] if task.dataset else cards
    partitions = []
    for dataset in names:
        releases = list_releases(store, dataset)
        if isinstance(task.releases, list):
            unknown = sorted(set(task.releases) - {release.name for release in releases})
            if unknown:
                raise InputMissing(f"{dataset} has no release {unknown[0]}; it has {[r.name for r in releases]}.")
            selected = [release for release in releases if release.name in task.releases]
        elif task.releases in ("latest", "missing"):
            selected = releases if task.releases == "missing" else releases[-1:]
        else:
            raise BadParams(f"releases must be latest, missing or a list, found {task.releases!r}.")
        listed = isinstance(task.releases, list)
        partitions += [r.partition for r in selected if listed or latest_record(store, dataset, r.name) is None]
    return partitions


def promotion(task: PromotionTask, store: Store) -> dict[str, Any]:
    """The plan and the lock entries of a recorded run, to promote the candidate of its decision.

    Raises:
        InputMissing: the release has no recorded run.
    """
    key = latest_record(store, task.dataset, task.release)
    if key is None:
        run_name = str(PartitionKey(task.dataset, task.release)) if task.release else task.dataset
        raise InputMissing(f"No run of {run_name} is recorded; trigger the DAG retrain first.")
    recorded = read_record(store, key)
    approval = read_yaml(project_root() / "params.yaml")["registry"]["approval"] == "required"
    run_plan = plan_of(recorded).model_copy(update={"promote": True, "approval": approval})
    return {"plan": run_plan.model_dump(), "entries": [entry.model_dump() for entry in entries_of(recorded)]}


def _check_rules(gate: GateParams) -> None:
    """Refuse now what the gate would only find after all trainings: a rule that is none, or one that needs a GPU.

    The task `gate` gets none, as for all other rules it would only keep it from trainings.
    """
    if any(timing.device == "cuda" for timing in trial_of(parse_rules(gate.listed)).timings):
        raise BadParams(
            "params.yaml: gate.rules: latency has a ceiling on cuda, and the gate of a scheduled run gets no GPU; set "
            "its device to cpu, or decide with `dvc repro` on a machine that has one."
        )


def _with_candidates(task: PlanTask, root: Path) -> dict[str, Any]:
    """The run's overrides, the candidates that it names among them, each in the list where params.yaml has its kind."""
    overrides = dict(task.overrides)
    candidates: dict[str, Any] = {} if task.seeds is None else {"seeds": task.seeds}
    if task.methods is not None:
        variants = read_yaml(root / "params.yaml")["candidates"].get("variants") or {}
        variants |= overrides.get("candidates", {}).get("variants") or {}
        taught = [name for name in task.methods if _is_taught(name, variants)]
        candidates |= {"methods": [name for name in task.methods if name not in taught], "taught": taught}
    if candidates:
        overrides["candidates"] = {**overrides.get("candidates", {}), **candidates}
    return overrides


def _is_taught(name: str, variants: dict[str, Any]) -> bool:
    """Whether a name's method reads knowledge; what is no name is refused with the run's params."""
    knobs = variants.get(name, {})
    method = knobs.get("method", name)
    return method in method_names() and bool(knowledge_of(method, knobs))
