"""report: one HTML file that shows data, candidates and decision, and a copy without pictures of patients."""

from typing import Any

from components.report.report import Sources, build
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Write the report, and the registry's copy of it."""
    pages = build(Sources(**job.inputs))
    job.outputs["report"].write_text(pages.full, encoding="utf-8")
    job.outputs["registry_report"].write_text(pages.for_registry, encoding="utf-8")
    report, size = str(job.final["report"]), len(pages.full.encode())
    return {"dataset": job.arguments["dataset"], "report": report, "bytes": size}


if __name__ == "__main__":
    run(__file__, work)
