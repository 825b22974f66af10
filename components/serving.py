"""A candidate as it would be served: where its backbone's files lie, and how it is tried out before that."""

from pathlib import Path

from clinprompt.evaluation.behaviour import Behaviour, Trial
from clinprompt.evaluation.contenders import Candidate, Probe
from clinprompt.params import BackboneParams, EvaluationParams, ValidationParams
from components.runner import Job
from registry.backbone import BackboneFiles, Hub
from registry.package import payload_of


def backbone_files(choice: BackboneParams) -> BackboneFiles:
    """Where the backbone's files lie, once their digest was checked."""
    from clinprompt.backbones.load import load_backbone

    backbone = load_backbone(choice.name, choice.path)
    entry = backbone.card
    hub = Hub(entry.hub, entry.revision) if entry and entry.hub and entry.revision else None
    return BackboneFiles(backbone.name, backbone.digest, backbone.folder, hub, entry.weights if entry else None)


def behaviour_of(job: Job) -> Probe:
    """Packs a candidate, and tries it out on the first validation images of each class, in a process of its own."""

    def measured(candidate: Candidate, trial: Trial) -> Behaviour:
        import numpy as np

        from clinprompt.data.codecs import decode_image
        from clinprompt.data.dataset import Dataset, read_image
        from clinprompt.evaluation.summary import measure_candidate
        from clinprompt.evaluation.table import evaluated_rows, read_predictions
        from clinprompt.scratch import ScratchFolder
        from registry.probe import Shown, probe

        dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
        card, classes = dataset.card, tuple(dataset.card.class_ids)
        table = job.inputs["evaluations"] / candidate.name / "predictions.parquet"
        frame, about = read_predictions(table, classes, tuple(card.novel_ids))
        params = job.params(EvaluationParams)
        fitted = measure_candidate(frame, about, candidate.method or candidate.id.name, dataset, params).calibration
        rows = evaluated_rows(dataset.rows)
        rows = rows[rows["split"] == "val"].reset_index(drop=True)
        turn = rows.groupby("label").cumcount()
        chosen = rows.assign(turn=turn).sort_values(["turn", "label"], kind="stable").index[: trial.shown]
        data = [read_image(item) for item in dataset.items(rows.loc[chosen])]
        told = frame[frame["split"] == "val"].set_index("path").loc[rows.loc[chosen, "path"]]
        decoded = [decode_image(one, card.intensity, frames=card.dicom.frames) for one in data[: trial.images]]
        backbone = backbone_files(job.params(BackboneParams))
        payload = payload_of(
            job.inputs["models"] / candidate.name,
            None,
            backbone,
            job.params(ValidationParams).max_pixels,
            fitted,
        )
        size = payload.size if trial.packed else None
        if not trial.shown:
            return Behaviour(images=0, payload_bytes=size)
        judged = told[[f"p_{name}" for name in classes]].to_numpy(np.float64)
        with backbone.within_reach(), ScratchFolder("probe") as scratch:
            found = probe(payload, trial, Shown(data, judged, classes, decoded), Path(scratch))
        return found.model_copy(update={"payload_bytes": size})

    return measured
