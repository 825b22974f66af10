"""ingest: read a dataset's files into a manifest and content-addressed images."""

from dataclasses import asdict
from typing import Any

from clinprompt.data.ingest import NearLimits, ingest
from clinprompt.data.load import load_card
from clinprompt.data.locate import locate
from clinprompt.errors import BadParams
from clinprompt.params import DataParams
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Find or generate the dataset, then ingest it."""
    path = job.inputs["card"]
    card = load_card(path)
    if card.name != job.arguments["dataset"]:
        raise BadParams(f"{path}: name: must be {job.arguments['dataset']!r}, as in params.yaml, found {card.name!r}.")
    root = locate(card, job.outputs["source"], job.params(DataParams).root)
    near = [job.params(f"validation.near_duplicate_{key}") for key in ("bits", "correlation")]
    facts = ingest(card, root, job.outputs["manifest"], job.outputs["images"], NearLimits(*near))
    return {"dataset": card.name, **asdict(facts)}


if __name__ == "__main__":
    run(__file__, work)
