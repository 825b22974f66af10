"""The sections of params.yaml that the DAGs read, and the variables of the environment that win over them."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from clinprompt.contract import variables
from clinprompt_dags import PROJECT
from clinprompt_dags.documents import BadDocument, check, read_yaml

RUNNERS = ("local", "docker", "kubernetes")
REVIEWS = ("by_hand", "after_runs")  # when people are asked about descriptions
PARAMS_SCHEMA = "clinprompt/contract/params.schema.json"

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["airflow", "registry", "candidates"],
    "properties": {
        "candidates": {"type": "object", "properties": {"variants": {"type": ["object", "null"]}}},
        "registry": {
            "type": "object",
            "required": ["approval"],
            "properties": {"approval": {"enum": ["none", "required"]}},
        },
        "airflow": {
            "type": "object",
            "additionalProperties": False,
            "required": ["runner", "python", "sweep", "deadline_hours", "owner", "approval_hours", "namespace"],
            "properties": {
                "runner": {"enum": list(RUNNERS)},
                "python": {"type": "string", "minLength": 1},
                "sweep": {"type": "string", "minLength": 1},
                "deadline_hours": {"type": "integer", "minimum": 1},
                "owner": {"type": "string", "minLength": 1},
                "approval_hours": {"type": "integer", "minimum": 1},
                "review": {"enum": list(REVIEWS)},
                "namespace": {"type": "string", "minLength": 1},
            },
        },
    },
}


@dataclass(frozen=True)
class Settings:
    """How the DAGs run."""

    root: Path
    runner: str
    python: Path
    sweep: str
    deadline: timedelta | None  # after which a run raises an alert
    owner: str
    approval: Literal["none", "required"]
    approval_timeout: timedelta
    review: Literal["by_hand", "after_runs"]
    namespace: str
    retry_delay: timedelta
    run_timeout: timedelta  # when a run is given up
    datasets: tuple[str, ...]  # all cards, those that params.yaml runs first
    candidates: tuple[str, ...]  # names that may compete: all methods, and the variants of params.yaml
    gpu: bool  # whether components that can use a GPU get one
    network: str | None  # docker: the containers' network
    weights: str | None  # docker: a volume or folder for weights; kubernetes: a persistent volume claim
    cache: str | None  # the same, for what tasks have fetched from the store
    signing: str | None  # docker: the file of the signing key; kubernetes: a secret with signing.pem
    verification: str | None  # docker: the file of the key that verifies; kubernetes: a config map
    promotion_queue: str | None  # the queue of the tasks that change the registry; None: that of all


def load_settings(root: Path = PROJECT) -> Settings:
    """Read params.yaml, the names of the dataset cards, and the environment.

    The variables CLINPROMPT_DEADLINE_SECONDS (0: no alert), CLINPROMPT_APPROVAL_SECONDS and CLINPROMPT_RETRY_SECONDS
    are for trying things out: they replace the hours of params.yaml and the first delay before a retry.

    Raises:
        BadDocument: names the key or the variable.
    """
    params = read_yaml(root, "params.yaml")
    check(params, _SCHEMA, "params.yaml")
    own = params["airflow"]
    methods = read_yaml(root, PARAMS_SCHEMA)["knowledge"]
    runner = os.environ.get(variables.RUNNER) or own["runner"]
    if runner not in RUNNERS:
        raise BadDocument(f"{variables.RUNNER}: must be one of {', '.join(RUNNERS)}, found {runner!r}.")
    cards = sorted(path.stem for path in (root / "datasets").glob("*.yaml"))
    first = [name for name in params.get("datasets", []) if name in cards]
    datasets = (*first, *(name for name in cards if name not in first))
    if not datasets:
        raise BadDocument(f"datasets: {root / 'datasets'} holds no card; python -m clinprompt.data.new writes one.")
    deadline = timedelta(seconds=_seconds(variables.DEADLINE_SECONDS, 3600 * own["deadline_hours"]))
    return Settings(
        root=root,
        runner=runner,
        python=root / Path(own["python"]).expanduser(),
        sweep=own["sweep"],
        deadline=deadline or None,
        owner=own["owner"],
        approval=params["registry"]["approval"],
        approval_timeout=timedelta(seconds=_seconds(variables.APPROVAL_SECONDS, 3600 * own["approval_hours"])),
        review=own.get("review", REVIEWS[0]),
        # Long after the alert, and not before an approval could come.
        run_timeout=timedelta(hours=2 * own["deadline_hours"] + own["approval_hours"]),
        namespace=own["namespace"],
        retry_delay=timedelta(seconds=_seconds(variables.RETRY_SECONDS, 30)),
        datasets=datasets,
        candidates=(*sorted(methods), *(params["candidates"].get("variants") or {})),
        gpu=os.environ.get(variables.GPU) == "1",
        network=os.environ.get(variables.NETWORK) or None,
        weights=os.environ.get(variables.WEIGHTS_VOLUME) or None,
        cache=os.environ.get(variables.CACHE_VOLUME) or None,
        signing=os.environ.get(variables.SIGNING_VOLUME) or None,
        verification=os.environ.get(variables.VERIFICATION_VOLUME) or None,
        promotion_queue=os.environ.get(variables.PROMOTION_QUEUE) or None,
    )


def _seconds(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not (text.isascii() and text.isdigit()):
        raise BadDocument(f"{variable}: must be a number of seconds, found {text!r}.")
    return int(text)
