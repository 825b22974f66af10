"""The MLflow run of a promotion: params, metrics, dataset, decision, and the model itself."""

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clinprompt.contract.candidates import CandidateId
from clinprompt.data.codecs.base import VOLUME
from clinprompt.data.load import load_card
from clinprompt.evaluation.calibration_record import Calibration
from clinprompt.evaluation.metrics_record import Metrics
from clinprompt.files import sha256_file, to_json
from clinprompt.tuned.record import ModelRecord
from registry import lineage, links, tracking
from registry.backbone import BackboneFiles
from registry.candidates import KIND, PARENT, flat_metrics, knobs, run_of_decision
from registry.model_card import MODEL_CARD, make_model_card
from registry.model_card_text import to_markdown
from registry.model_folder import FILES_TAG, SCRIPT, digests_tag
from registry.package import payload_of
from registry.request import PromotionRequest

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "classifier"
EXAMPLE_SIDE = 8  # pixels of the input example


@dataclass(frozen=True)
class Packed:
    """A written payload, with the facts for its tags, and the backbone, which may be too large to be part of it."""

    payload: Path
    facts: dict[str, str]
    backbone: BackboneFiles


@dataclass(frozen=True)
class Logged:
    """A logged model that is not registered yet.

    Attributes:
        files: the digests of its files beside the payload, for the version's tag.
        facts: its lineage, as lineage.json among those files says: of an earlier promotion, where that has logged it.
    """

    uri: str
    run_id: str
    files: str
    facts: dict[str, str]

    @property
    def model_id(self) -> str:
        """MLflow's own, which its address ends with."""
        return self.uri.removeprefix("models:/")


def pack(release: PromotionRequest, scratch: Path) -> Packed:
    """Write the release's payload below `scratch`; nothing is registered or logged."""
    payload, backbone, fitted = scratch / "payload", release.backbone(), release.measured.calibration
    digest = payload_of(release.model, release.descriptions, backbone, release.max_pixels, fitted).write(payload)
    return Packed(payload, _facts(release, digest), backbone)


def log_release(client: "MlflowClient", release: PromotionRequest, packed: Packed) -> Logged:
    """Log a packed release, unless a finished run holds the same payload."""
    with tracking.service_errors():
        experiment = tracking.experiment_id(client, release.names.experiment)
        runs = client.search_runs([experiment], f"tags.payload_digest = '{packed.facts['payload_digest']}'")
        for run in runs:
            tags = run.data.tags
            if run.info.status == "FINISHED" and FILES_TAG in tags:
                facts = {key: tags[key] for key in packed.facts if key in tags}
                return Logged(tags["model_uri"], run.info.run_id, tags[FILES_TAG], facts)
        for run in runs:
            if run.info.status != "FINISHED":
                client.set_terminated(run.info.run_id, "KILLED")  # an earlier attempt stopped here
        return _log(client, release, packed, experiment)


def _facts(release: PromotionRequest, payload_digest: str) -> dict[str, str]:
    digests = {
        "payload_digest": payload_digest,
        "inputs_digest": release.inputs_digest,
        "manifest_digest": sha256_file(release.manifest),
        **release.texts.facts,
        "card_digest": sha256_file(release.card),
        "decision_digest": sha256_file(release.decision_file),
    }
    params = {"method": release.record.config, "gate": release.decision.params.to_json()}
    return lineage.lineage(release.record, release.chosen.model_digest, digests, params)


def _log(client: "MlflowClient", release: PromotionRequest, packed: Packed, experiment: str) -> Logged:
    import mlflow

    payload, facts = packed.payload, packed.facts
    model, metrics = release.record, release.measured
    beside, folder = (payload.with_name(kind) for kind in ("record", "model"))
    _write_record(release, metrics, facts, beside)
    name = f"{release.dataset} {CandidateId(model.candidate, model.seed)}"
    tags = facts | {KIND: "registration"} | links.airflow_tags()
    candidates = run_of_decision(client, experiment, facts["decision_digest"])
    if candidates is not None:
        tags[PARENT] = str(candidates.info.run_id)
    with mlflow.start_run(experiment_id=experiment, run_name=name, tags=tags) as run:
        run_id = str(run.info.run_id)
        mlflow.log_params(knobs(model))
        of_score = metrics.score.estimates if metrics.score else {}
        told = metrics.test | {f"score_{name}": estimate for name, estimate in of_score.items()}
        mlflow.log_metrics(flat_metrics(metrics.val, told))
        tracking.insert(client.log_inputs, run_id, [_dataset(release, facts)])
        mlflow.log_artifact(str(release.decision_file))
        model_id = _log_model(client, run_id, experiment, payload, beside, folder, model, metrics.calibration)
        uri, files = f"models:/{model_id}", digests_tag(folder)
        mlflow.set_tags({FILES_TAG: files, "model_uri": uri})
    return Logged(uri, run_id, files, facts)


def _log_model(
    client: "MlflowClient",
    run_id: str,
    experiment: str,
    payload: Path,
    beside: Path,
    folder: Path,
    model: ModelRecord,
    calibration: Calibration | None,
) -> str:
    """Save the model to `folder` and log it to the run; returns the logged model's id.

    `mlflow.pyfunc.log_model` does the same, but nobody sees the files before they are in the store: what the registry
    keeps the digests of must not come from there.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    params = {key: str(value) for key, value in knobs(model).items()}
    logged = client.create_logged_model(experiment, name=MODEL_NAME, source_run_id=run_id, params=params)
    model_id = str(logged.model_id)
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=Model(
            artifact_path=logged.artifact_location, model_uuid=model_id, run_id=run_id, model_id=model_id
        ),
        python_model=str(payload / SCRIPT),
        artifacts={"payload": str(payload), "record": str(beside)},
        signature=_signature(model, calibration),
        input_example=_example(model),
        pip_requirements=lineage.requirements(model),
    )
    for compiled in folder.rglob("__pycache__"):
        shutil.rmtree(compiled)
    client.log_model_artifacts(model_id, str(folder))
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    return model_id


def _write_record(release: PromotionRequest, metrics: Metrics, facts: dict[str, str], folder: Path) -> None:
    folder.mkdir()
    shutil.copyfile(release.decision_file, folder / "decision.json")
    release.texts.write(folder)
    (folder / "lineage.json").write_text(to_json(facts), encoding="utf-8")
    card = make_model_card(load_card(release.card), release.record, metrics, release.decision, facts)
    card.write(folder / MODEL_CARD)
    (folder / "model_card.md").write_text(to_markdown(card), encoding="utf-8")


def _dataset(release: PromotionRequest, facts: dict[str, str]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = facts["manifest_digest"]
    source = json.dumps({"manifest_sha256": digest, "card_sha256": facts["card_digest"]}, sort_keys=True)
    # MLflow keeps 36 characters of a digest; the whole one is in the source.
    dataset = Dataset(name=release.dataset, digest=digest[:32], source_type="clinprompt", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _signature(model: ModelRecord, calibration: Calibration | None) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    outputs = [ColSpec(DataType.string, "label"), ColSpec(DataType.double, "probability")]
    outputs += [ColSpec(DataType.double, f"p_{name}") for name in model.classes]
    if calibration is not None and calibration.prediction_sets.thresholds is not None:
        outputs.append(ColSpec(Array(DataType.string), "prediction_set"))
    if calibration is not None and calibration.abstention.threshold is not None:
        outputs.append(ColSpec(DataType.boolean, "abstain"))
    if model.score is not None:
        outputs.append(ColSpec(DataType.double, f"{model.score}_estimate"))
    return ModelSignature(inputs=Schema([ColSpec(AnyType(), "image")]), outputs=Schema(outputs))


def _example(record: ModelRecord) -> Any:
    """A table with one small grey ramp in base64: a PNG, or where the model reads volumes a NIfTI volume."""
    import io

    import pandas as pd
    from PIL import Image

    ramp = np.linspace(0, 255, EXAMPLE_SIDE * EXAMPLE_SIDE).astype(np.uint8).reshape(EXAMPLE_SIDE, EXAMPLE_SIDE)
    if record.preprocessing.get("kind") == VOLUME:
        import nibabel

        data = nibabel.Nifti1Image(np.repeat(ramp[:, :, None], EXAMPLE_SIDE, axis=2), np.eye(4)).to_bytes()
    else:
        png = io.BytesIO()
        Image.fromarray(ramp).save(png, "PNG")
        data = png.getvalue()
    return pd.DataFrame({"image": [base64.b64encode(data).decode()]})
