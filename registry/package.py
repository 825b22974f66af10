"""The payload: everything that decides a served prediction, as a folder of files with a manifest of their digests.

Equal inputs give equal bytes, so that the payload's digest, the SHA-256 of `manifest.json`, is the model's identity.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.calibration_record import Calibration
from clinprompt.files import read_json, sha256_bytes, sha256_file, to_json
from clinprompt.tuned.artifact import HEAD, PROMPTS, RECORD
from clinprompt.tuned.record import ModelRecord
from registry.backbone import BackboneFiles, embedded_files, sha256_of
from registry.served_code import code_of

FORMAT = 1
MANIFEST, DESCRIPTIONS, CALIBRATION = "manifest.json", "descriptions.json", "calibration.json"


@dataclass(frozen=True)
class Payload:
    """File names with their content, which is bytes or a file to copy."""

    files: dict[str, bytes | Path]

    @property
    def manifest(self) -> bytes:
        """`manifest.json`: the SHA-256 of every other file."""
        digests = {name: sha256_of(content) for name, content in self.files.items()}
        return to_json({"format": FORMAT, "files": digests}).encode()

    @property
    def size(self) -> int:
        """Bytes of all files and the manifest."""
        contents = [*self.files.values(), self.manifest]
        return sum(len(c) if isinstance(c, bytes) else c.stat().st_size for c in contents)

    def write(self, folder: Path) -> str:
        """Write the files and the manifest below a new folder; return the payload's digest."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path)
        # From the written files: what is registered is what was hashed, even if a source changed meanwhile.
        manifest = Payload({name: folder / name for name in self.files}).manifest
        (folder / MANIFEST).write_bytes(manifest)
        return sha256_bytes(manifest)


def payload_of(
    model: Path,
    descriptions: Path | None,
    backbone: BackboneFiles,
    max_pixels: int,
    calibration: Calibration | None = None,
) -> Payload:
    """The payload of a tuned model.

    Args:
        model: a folder that `tune` wrote (its tensors, a linear head where that is all, model.yaml).
        descriptions: the knowledge table; its accepted rows go along with a model that reads knowledge. To another
            they make no difference, and must not make another model of it. None: they are left out.
        backbone: the one that the model was tuned on; its digest must be the model's.
        max_pixels: the served model refuses larger images before it decodes them, as the validation did.
        calibration: what was fitted on the validation split; without it the probabilities are the model's own, and
            there are no prediction sets.

    Raises:
        InputMissing: a file isn't there.
        InputCorrupt: the backbone isn't the one of model.yaml.
    """
    record = ModelRecord.read(model / RECORD)
    if backbone.digest != record.backbone.digest:
        raise InputCorrupt(
            f"{model / RECORD} was tuned on the backbone {record.backbone.name} with digest "
            f"{record.backbone.digest[:12]}…, but {backbone.folder} has {backbone.digest[:12]}…. Run `dvc repro`."
        )
    tuned = {name: model / name for name in ((HEAD, PROMPTS) if record.needs_only_head else (PROMPTS,))}
    for path in tuned.values():
        if not path.is_file():
            raise InputMissing(f"{path} does not exist; run the tune stage again (dvc repro).")
    reference, embedded = embedded_files(backbone, with_text=not record.needs_only_head)
    return Payload(
        {
            **tuned,
            **{f"backbone/{name}": content for name, content in embedded.items()},
            **code_of(record),
            **(
                {DESCRIPTIONS: to_json(accepted_descriptions(descriptions)).encode()}
                if record.knowledge and descriptions
                else {}
            ),
            **({CALIBRATION: calibration_bytes(calibration)} if calibration else {}),
            "model.json": to_json(_model(record, reference, max_pixels)).encode(),
        }
    )


def calibration_bytes(calibration: Calibration) -> bytes:
    """The content of `calibration.json`."""
    return to_json(calibration.to_json()).encode()


def accepted_descriptions(table: Path) -> list[dict[str, str]]:
    """The accepted descriptions, sorted by class, aspect and text.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is not a table of descriptions.
    """
    from clinprompt.parquet import read_frame

    keys = ["class", "aspect", "text"]
    frame = read_frame(table, [*keys, "accepted"], "describe")
    rows = frame.loc[frame["accepted"].astype(bool), keys].sort_values(keys)
    return [{str(k): str(v) for k, v in row.items()} for row in rows.to_dict("records")]


def verify_payload(folder: Path, digest: str) -> dict[str, Any]:
    """Check a payload folder against its digest; return its `model.json`.

    Raises:
        InputMissing: the manifest or a file of it is missing.
        InputCorrupt: the manifest is not the one with this digest, a file's bytes differ, or a file is too many.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputMissing(f"{path} does not exist; the model was not copied completely.")
    if sha256_file(path) != digest:
        raise InputCorrupt(f"{path} does not have the digest {digest} that the registry records: don't use this model.")
    files = read_json(path)["files"]
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()} - {MANIFEST}
    check_files(folder, present, files, stranger="is not in the payload's manifest")
    spec: dict[str, Any] = read_json(folder / "model.json")
    return spec


def check_files(folder: Path, present: set[str], digests: dict[str, str], *, stranger: str) -> None:
    """Hold the files that are present, by their paths in a folder, against the SHA-256 of those that must be.

    Args:
        stranger: what is said of a file that is too many.

    Raises:
        InputMissing: a file is missing.
        InputCorrupt: a file's bytes differ, or a file is too many.
    """
    for name in sorted(present ^ set(digests)):
        if name in present:
            raise InputCorrupt(f"{folder / name} {stranger}: don't use this model.")
        raise InputMissing(f"{folder / name} does not exist; the model was not copied completely.")
    for name, expected in digests.items():
        if sha256_file(folder / name) != expected:
            raise InputCorrupt(f"{folder / name} was changed after registration: don't use this model.")


def _model(record: ModelRecord, backbone: dict[str, Any], max_pixels: int) -> dict[str, Any]:
    fields = {
        "dataset",
        "candidate",
        "method",
        "config",
        "seed",
        "classes",
        "class_names",
        "preprocessing",
        "intensity",
        "predicts_with",
    }
    told = {"score": record.score} if record.score else {}
    told |= {"frames": record.frames} if record.frames != "one" else {}
    return {
        "format": FORMAT,
        "backbone": backbone,
        "max_pixels": max_pixels,
        **record.model_dump(include=fields),
        **told,
    }
