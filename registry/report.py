"""The report of a run beside the model that it promoted."""

from pathlib import Path

from registry import tracking
from registry.versions import by_number, run_of


def attach_report(name: str, number: int, report: Path) -> str:
    """Log a report to the MLflow run that logged a version's model; returns the run's id. An earlier one is replaced.

    Raises:
        InputMissing: there is no such version.
        BadParams: the registry can only be read.
        ServiceDown: the MLflow server does not answer.
    """
    tracking.check_local_store_writable()
    client = tracking.connect()
    run_id = run_of(client, by_number(client, name, number))
    with tracking.service_errors():
        client.log_artifact(run_id, str(report))
    return run_id
