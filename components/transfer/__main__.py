"""Test the tuned candidates of one dataset on the test split of another."""

from typing import Any

from clinprompt.data.dataset import Dataset
from clinprompt.errors import NotTrained
from clinprompt.evaluation.score import actual_scores
from clinprompt.files import write_json
from clinprompt.params import BackboneParams, CandidatesParams, TrainingParams
from clinprompt.tuned.artifact import load_model
from clinprompt.tuned.failure import failure_in
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Build every candidate for the target's classes, and measure it."""
    from clinprompt.experiments.protocol_runner import measured
    from clinprompt.experiments.results import Result
    from clinprompt.tuned.session import TuningSession
    from clinprompt.tuned.transfer import for_classes

    source, target = job.arguments["source"], job.arguments["target"]
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    backbone, training, scratch = job.params(BackboneParams), job.params(TrainingParams), job.final["result"].parent
    session = TuningSession.open(dataset, job.inputs, backbone, training, scratch)
    rows: list[dict[str, Any]] = []
    for candidate in job.params(CandidatesParams).ids:
        folder = job.inputs["models"] / str(candidate)
        failure = failure_in(folder)
        if failure is not None:
            facts = {"candidate": candidate.name, "method": failure.method, "seed": candidate.seed}
            rows.append(facts | {"left_out": f"It was not trained: {failure.reason}."})
            continue
        tuned = load_model(folder)
        row = {"candidate": candidate.name, "method": tuned.record.method, "seed": candidate.seed}
        row["model_digest"] = tuned.digest
        try:
            model = for_classes(tuned.record, folder, dataset.card.classes, session.backbone, job.inputs)
        except NotTrained as error:
            rows.append(row | {"left_out": str(error)})
            continue
        tested, score = dataset.split("test"), dataset.card.score
        # A model that has learned no score may still tell one, for classes that it was built for anew.
        actual = None if score is None or tuned.record.score is None else actual_scores(tested, score)
        rows.append(row | {"test": measured(model, session.examples(model, tested), actual)})
    about = session.data_facts() | {"protocol": "transfer", "dataset": source, "target": target}
    write_json(job.outputs["result"], Result(about, rows).to_json())
    return {"source": source, "target": target, "candidates": len(rows)}


if __name__ == "__main__":
    run(__file__, work)
