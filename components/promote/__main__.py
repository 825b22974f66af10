"""promote: register the gate's choice and make it the champion.

The stage runs on every `dvc repro`, so what is heavy is imported only when there is something to register.
"""

import logging
from pathlib import Path
from typing import Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.files import sha256_file
from clinprompt.params import BackboneParams, RegistryParams
from clinprompt.tuned.artifact import model_digest
from components.runner import Job, run
from registry.links import run_url
from registry.package import BackboneFiles, Hub
from registry.promote import promote, rejected
from registry.receipt import Receipt
from registry.request import PromotionRequest

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Promote what the decision chose, and write the receipt."""
    decision = DecisionRecord.read(job.inputs["decision"])
    release = _release(job, decision)
    if decision.chosen is not None:
        _check_model(release.model, decision.chosen.model_digest)
        receipt = promote(release)
    else:
        receipt = rejected(release)
    receipt.write(job.outputs["receipt"])
    log.info("promote: %s: %s: %s.", receipt.model, receipt.action, _outcome(receipt))
    facts = {"dataset": release.dataset, "action": receipt.action, "model": receipt.model, "version": receipt.version}
    page = None
    if receipt.version is not None and receipt.action in ("promoted", "unchanged"):
        page = run_url(receipt.model, receipt.version)
    return facts | ({"run_url": page} if page else {})


def _outcome(receipt: Receipt) -> str:
    champion = f"version {receipt.version} is the champion" if receipt.version else "there is no champion"
    if receipt.action == "rejected":
        return "the registry stays as it is"
    held = receipt.quarantined
    if held is not None:
        lift = f"python -m registry unquarantine {receipt.model} --version {held.version} --reason TEXT"
        return f"it was rolled back as version {held.version} ({held.reason}), and {champion}; to let it in: {lift}"
    return champion


def _release(job: Job, decision: DecisionRecord) -> PromotionRequest:
    dataset, names = job.arguments["dataset"], job.params(RegistryParams)
    folder = job.inputs["models"] / (decision.chosen.folder if decision.chosen else "")
    return PromotionRequest(
        dataset=dataset,
        names=RegistryParams(**{key: name.format(dataset=dataset) for key, name in names.model_dump().items()}),
        decision=decision,
        decision_file=job.inputs["decision"],
        card=job.inputs["card"],
        model=folder,
        descriptions=job.inputs["descriptions"],
        manifest=job.inputs["manifest"],
        metrics=job.inputs["metrics"] / f"{folder.name}.json",
        backbone=lambda: backbone_files(job.params(BackboneParams)),
        sample=lambda: _sample(job.inputs["manifest"], job.inputs["images"]),
    )


def _check_model(folder: Path, expected: str) -> None:
    if model_digest(folder) != expected:
        raise InputCorrupt(f"{folder} is not the model that the gate chose ({expected[:12]}…); run `dvc repro`.")


def backbone_files(choice: BackboneParams) -> BackboneFiles:
    """Where the backbone's files lie; it is loaded once, which checks its digest."""
    from clinprompt.backbones import load_backbone

    backbone = load_backbone(choice.name, choice.path)
    entry = backbone.card
    hub = Hub(entry.hub, entry.revision) if entry and entry.hub and entry.revision else None
    return BackboneFiles(backbone.name, backbone.digest, backbone.folder, hub, entry.weights if entry else None)


def _sample(manifest: Path, images: Path) -> list[bytes]:
    """The first test image of each class."""
    from clinprompt.data.manifest import read_manifest

    rows = read_manifest(manifest)
    firsts = rows[rows["split"] == "test"].drop_duplicates("label")
    found = []
    for file, digest in zip(firsts["file"], firsts["id"], strict=True):
        path = images / file
        if not path.is_file():
            raise InputMissing(f"{path} does not exist; run the ingest stage again (dvc repro).")
        if sha256_file(path) != digest:
            raise InputCorrupt(f"{path} is not the image that the manifest lists; run `dvc repro`.")
        found.append(path.read_bytes())
    return found


if __name__ == "__main__":
    run(__file__, work)
