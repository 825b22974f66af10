"""promote: register the gate's choice and make it the champion.

The stage runs on every `dvc repro`, so what is heavy is imported only when there is something to register.
"""

import logging
from pathlib import Path
from typing import Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import read_json, sha256_file, write_json
from clinprompt.params import BackboneParams, RegistryParams
from clinprompt.tuned.artifact import model_digest
from components.runner import Job, run
from registry.links import run_url
from registry.package import BackboneFiles, Hub
from registry.promote import promote, rejected
from registry.request import PromotionRequest

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Promote what the decision chose, and write the receipt."""
    verdict = read_json(job.inputs["decision"])
    release = _release(job, verdict)
    if verdict["verdict"] == "accepted":
        _check_model(release)
        receipt = promote(release)
    else:
        receipt = rejected(release)
    write_json(job.outputs["receipt"], receipt)
    log.info("promote: %s: %s: %s.", receipt["model"], receipt["action"], _outcome(receipt))
    facts = {"dataset": release.dataset, **{key: receipt[key] for key in ("action", "model", "version")}}
    page = run_url(receipt["model"], receipt["version"]) if receipt["action"] in ("promoted", "unchanged") else None
    return facts | ({"run_url": page} if page else {})


def _outcome(receipt: dict[str, Any]) -> str:
    champion = f"version {receipt['version']} is the champion" if receipt["version"] else "there is no champion"
    if receipt["action"] == "rejected":
        return "the registry stays as it is"
    if receipt["action"] == "quarantined":
        model, held = receipt["model"], receipt["quarantined"]
        lift = f"python -m registry unquarantine {model} --version {held['version']} --reason TEXT"
        return (
            f"it was rolled back as version {held['version']} ({held['reason']}), and {champion}; to let it in: {lift}"
        )
    return champion


def _release(job: Job, verdict: dict[str, Any]) -> PromotionRequest:
    dataset, names, chosen = job.arguments["dataset"], job.params("registry"), verdict["chosen"] or {}
    folder = job.inputs["models"] / str(chosen.get("folder", ""))
    return PromotionRequest(
        dataset=dataset,
        names=RegistryParams(**{key: name.format(dataset=dataset) for key, name in names.model_dump().items()}),
        decision=job.inputs["decision"],
        verdict=verdict,
        card=job.inputs["card"],
        model=folder,
        descriptions=job.inputs["descriptions"],
        manifest=job.inputs["manifest"],
        metrics=job.inputs["metrics"] / f"{folder.name}.json",
        report=job.inputs["report"],
        backbone=lambda: backbone_files(job.params("backbone")),
        sample=lambda: _sample(job.inputs["manifest"], job.inputs["images"]),
    )


def _check_model(release: PromotionRequest) -> None:
    expected = release.verdict["chosen"]["model_digest"]
    if model_digest(release.model) != expected:
        raise InputCorrupt(f"{release.model} is not the model that the gate chose ({expected[:12]}…); run `dvc repro`.")


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
