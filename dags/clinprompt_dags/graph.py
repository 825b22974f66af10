"""The graph of dvc.yaml and the needs of each component.yaml, as tasks are made from them."""

import json
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

from clinprompt.contract.files import COMPONENT_SCHEMA
from clinprompt.contract.tasks import LOCK_STAGE
from clinprompt_dags.documents import BadDocument, check, read_yaml

DATASET = "dataset"  # the matrix key that a run fixes


@dataclass(frozen=True)
class Need:
    """Where a task runs, what it reserves and how long it may take."""

    image: str
    cpu: float = 1
    memory: str = "1Gi"
    gpu: str = "none"
    pool: str = "default"
    retries: int = 2
    timeout_minutes: int = 60

    @property
    def promotes(self) -> bool:
        """Whether the task changes the registry's production models."""
        return self.pool == "promotion"


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml.

    Attributes:
        upstream: the stages whose outputs it reads itself.
        candidates: the list below `candidates` of params.yaml that it is mapped over; None: one task per run.
    """

    name: str
    about: str
    upstream: tuple[str, ...]
    candidates: str | None
    need: Need
    exit_codes: tuple[int, ...]

    @property
    def mapped(self) -> bool:
        """Whether there is a task for each candidate."""
        return self.candidates is not None


@dataclass(frozen=True)
class Graph:
    """The stages but `lock`, in an order in which they can run, that of dvc.yaml where it leaves a choice."""

    stages: tuple[Stage, ...]

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def before(self, name: str) -> set[str]:
        """All stages that must have run before this one."""
        direct = set(self[name].upstream)
        return direct.union(*(self.before(upstream) for upstream in direct))

    def edges(self, name: str) -> tuple[str, ...]:
        """The direct upstream stages that are not upstream of another one: enough to order the tasks."""
        direct = self[name].upstream
        return tuple(stage for stage in direct if not any(stage in self.before(successor) for successor in direct))

    def is_optional(self, name: str) -> bool:
        """Whether the stage promotes, or follows a promotion, which a run may do without."""
        return any(self[stage].need.promotes for stage in (name, *self.before(name)))

    def last(self) -> tuple[str, ...]:
        """The stages that a run has ended after: what must follow none of them, as an optional one may be skipped."""
        certain = {name for stage in self.stages if not self.is_optional(stage.name) for name in stage.upstream}
        optional = {name for stage in self.stages for name in stage.upstream if self.is_optional(name)}
        return tuple(stage.name for stage in self.stages if stage.name not in certain | optional)


def load_graph(root: Path) -> Graph:
    """Read dvc.yaml and the component.yaml of each of its stages.

    Raises:
        BadDocument: names the file and the key.
    """
    stages = read_yaml(root, "dvc.yaml").get("stages") or {}
    if not stages:
        raise BadDocument("dvc.yaml: stages: is empty.")
    stages = {name: stage for name, stage in stages.items() if name != LOCK_STAGE}
    outs = {name: _paths(stage, ("outs", "metrics", "plots")) for name, stage in stages.items()}
    lists = {name: _candidates(name, stage) for name, stage in stages.items()}
    upstream = {name: _upstream(name, _paths(stage, ("deps",)), outs, lists) for name, stage in stages.items()}
    schema = _schema(root)
    return Graph(tuple(_stage(root, name, stages[name], upstream[name], schema) for name in _order(upstream)))


def _schema(root: Path) -> dict[str, Any]:
    try:
        schema: dict[str, Any] = json.loads((root / COMPONENT_SCHEMA).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise BadDocument(f"{COMPONENT_SCHEMA}: cannot be read: {error}") from None
    return schema


def _stage(root: Path, name: str, stage: dict[str, Any], upstream: tuple[str, ...], schema: dict[str, Any]) -> Stage:
    file = f"components/{_component(name, stage)}/component.yaml"
    component = read_yaml(root, file)
    check(component, schema, file)
    resources = component["resources"]
    return Stage(
        name=name,
        about=component["about"],
        upstream=upstream,
        candidates=_candidates(name, stage),
        need=Need(
            image=component["image"],
            cpu=resources["cpu"],
            memory=resources["memory"],
            gpu=resources.get("gpu", "none"),
            pool=component.get("pool", "default"),
            retries=component.get("retries", 2),
            timeout_minutes=component["timeout_minutes"],
        ),
        exit_codes=tuple(component["exit_codes"]),
    )


def _paths(stage: dict[str, Any], sections: tuple[str, ...]) -> list[PurePosixPath]:
    items = [item for section in sections for item in stage.get(section) or []]
    return [PurePosixPath(next(iter(item)) if isinstance(item, dict) else item) for item in items]


def _component(name: str, stage: dict[str, Any]) -> str:
    """The component that a stage's command runs."""
    match = re.match(r"python -m components\.(\w+)\s", str(stage.get("cmd")))
    if match is None:
        raise BadDocument(f"dvc.yaml: stages.{name}.cmd: must begin with python -m components.<name>.")
    return match[1]


def _candidates(name: str, stage: dict[str, Any]) -> str | None:
    """The list of params.yaml that the matrix takes its candidates from."""
    matrix = stage.get("matrix") or {}
    if DATASET not in matrix:
        raise BadDocument(f"dvc.yaml: stages.{name}.matrix: must have the key {DATASET!r}: a run is of one dataset.")
    if set(matrix) == {DATASET}:
        return None
    match = re.fullmatch(r"\$\{candidates\.(\w+)\}", str(matrix.get("candidate")))
    if match is None:
        raise BadDocument(f"dvc.yaml: stages.{name}.matrix.candidate: must be a list below candidates of params.yaml.")
    return match[1]


def _upstream(
    name: str,
    deps: list[PurePosixPath],
    outs: dict[str, list[PurePosixPath]],
    lists: dict[str, str | None],
) -> tuple[str, ...]:
    """The stages with an output that is, lies in or holds one of the dependencies; of one list of candidates."""
    return tuple(
        producer
        for producer, paths in outs.items()
        if producer != name
        and (lists[name] is None or lists[producer] in (None, lists[name]))
        and any(dep == out or dep in out.parents or out in dep.parents for dep in deps for out in paths)
    )


def _order(upstream: dict[str, tuple[str, ...]]) -> list[str]:
    position = {name: index for index, name in enumerate(upstream)}
    sorter = TopologicalSorter(upstream)
    try:
        sorter.prepare()
    except CycleError as error:
        raise BadDocument(f"dvc.yaml: stages: {' → '.join(error.args[1])} is a cycle.") from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        order += ready
        sorter.done(*ready)
    return order


def memory_bytes(text: str) -> int:
    """Bytes in `512Mi` or `8Gi`."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()  # type: ignore[union-attr] # the schema says so
    return int(number) * (1 << 20 if unit == "Mi" else 1 << 30)
