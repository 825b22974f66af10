"""report: one HTML file that shows the data, the candidates and the decision."""

from typing import Any

from components.report.report import Sources, build
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Write the report."""
    html = build(Sources(**job.inputs))
    job.outputs["report"].write_text(html, encoding="utf-8")
    return {"dataset": job.arguments["dataset"], "report": str(job.final["report"]), "bytes": len(html.encode())}


if __name__ == "__main__":
    run(__file__, work)
