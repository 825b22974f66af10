"""The plan of a run, made by its first task: release, code, params, candidates."""

import logging
from typing import Any

from clinprompt.errors import BadParams, InputMissing
from clinprompt.schema import read_yaml
from workspace.project import code_digest, project_root, run_params
from workspace.records import entries_of, latest_record, plan_of, read_record
from workspace.releases import find_release, list_releases
from workspace.store import Store
from workspace.task import Cell, Plan, PlanTask, PromotionTask, SweepTask

log = logging.getLogger(__name__)


def plan(task: PlanTask, store: Store) -> Plan:
    """Make the plan of a run on a dataset's release.

    Only the newest release is promoted with `promote: auto`, so that running old ones again changes nothing for
    those who use the champion.

    Raises:
        BadParams: no such dataset, an override without a key.
        InputMissing: no such release.
    """
    if task.promote not in ("auto", "never"):
        raise BadParams(f"promote must be auto or never, found {task.promote!r}.")
    root = project_root()
    if not (root / "datasets" / f"{task.dataset}.yaml").is_file():
        raise BadParams(f"datasets/{task.dataset}.yaml does not exist; write the dataset's card first.")
    release = find_release(store, task.dataset, task.release)
    newest = list_releases(store, task.dataset)[-1].name == release.name
    overrides = _with_candidates(task)
    _, params = run_params(root, task.dataset, overrides)
    cells = [Cell(method=m, seed=s) for m in params.candidates.methods for s in params.candidates.seeds]
    previous = latest_record(store, task.dataset, release.name) or latest_record(store, task.dataset, None)
    run_plan = Plan(
        dataset=task.dataset,
        release=release.name,
        digest=release.digest,
        size=release.size,
        files=release.files,
        code=code_digest(root),
        images=task.images,
        overrides=overrides,
        cells=cells,
        previous=previous,
        promote=newest and task.promote == "auto",
        approval=params.registry.approval == "required",
    )
    if not newest:
        log.info("plan: %s is not the newest release: it is run and recorded, not promoted.", run_plan.partition)
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
        run_name = f"{task.dataset}@{task.release}" if task.release else task.dataset
        raise InputMissing(f"No run of {run_name} is recorded; trigger the DAG retrain first.")
    recorded = read_record(store, key)
    approval = read_yaml(project_root() / "params.yaml")["registry"]["approval"] == "required"
    run_plan = plan_of(recorded).model_copy(update={"promote": True, "approval": approval})
    return {"plan": run_plan.model_dump(), "entries": [entry.model_dump() for entry in entries_of(recorded)]}


def _with_candidates(task: PlanTask) -> dict[str, Any]:
    overrides = dict(task.overrides)
    candidates = {key: value for key, value in (("methods", task.methods), ("seeds", task.seeds)) if value is not None}
    if candidates:
        overrides["candidates"] = {**overrides.get("candidates", {}), **candidates}
    return overrides
