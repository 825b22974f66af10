"""attach: put the run's report, without its pictures of patients, beside the model that the run promoted."""

import logging
from typing import Any

from clinprompt.files import sha256_file, write_json
from components.runner import Job, run
from registry.receipt import Receipt
from registry.report import attach_report

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Log the report to the MLflow run of the promoted version; there is nothing to do after a rejection."""
    receipt, report = Receipt.read(job.inputs["receipt"]), job.inputs["report"]
    run_id = None
    if receipt.version is not None and receipt.action in ("promoted", "unchanged"):
        run_id = attach_report(receipt.model, receipt.version, report)
        log.info("attach: %s version %d: its MLflow run has the report.", receipt.model, receipt.version)
    write_json(job.outputs["attached"], {"format": 1, "run_id": run_id, "report": sha256_file(report)})
    return {"dataset": job.arguments["dataset"], "run_id": run_id}


if __name__ == "__main__":
    run(__file__, work)
