"""explain: pictures of what a tuned model looks at, what tuning moved, and what it was taught."""

from typing import Any

from clinprompt.data.dataset import Dataset
from clinprompt.errors import InputCorrupt
from clinprompt.evaluation.decision import DecisionRecord, MeasuredCandidate
from clinprompt.files import write_json
from clinprompt.tuned.artifact import TunedModel, load_model
from components.runner import Job, run

FORMAT = 1


def work(job: Job) -> dict[str, Any]:
    """Draw the pictures of the candidate that the gate chose, or that came nearest; none where none was measured."""
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    card = dataset.card
    shown = DecisionRecord.read(job.inputs["decision"]).shown()
    folder = job.outputs["pictures"]
    folder.mkdir(parents=True)
    facts: dict[str, Any] = {"format": FORMAT, "dataset": card.name, "candidate": None, "items": [], "left_out": []}
    if shown is not None:
        model = load_model(job.inputs["models"] / shown.name)
        _check_fits(job, model, shown, card.class_ids)

        from components.explain.pictures import draw

        candidate = {key: getattr(shown, key) for key in ("candidate", "method", "seed", "model_digest")}
        facts |= {"candidate": candidate, **draw(job, dataset, shown.name, model)}
    write_json(folder / "index.json", facts)
    name = None if shown is None else shown.name
    files = [item["file"] for item in facts["items"]]
    return {"dataset": card.name, "candidate": name, "files": files, "left_out": facts["left_out"]}


def _check_fits(job: Job, model: TunedModel, shown: MeasuredCandidate, classes: list[str]) -> None:
    path = job.inputs["models"] / shown.name
    if model.digest != shown.model_digest:
        raise InputCorrupt(f"{path} is not the model that {job.inputs['decision']} judged; run the gate stage again.")
    if model.record.classes != classes:
        raise InputCorrupt(
            f"{path} knows the classes {model.record.classes}, the card {classes}; run the tune stage again."
        )


if __name__ == "__main__":
    run(__file__, work)
