"""The folder of a registered MLflow model: its files are held against digests that the registry keeps, outside of it.

The payload has a manifest, whose digest is a tag of the version. The digests of all other files (MLmodel, the script,
requirements, the record, the input example) are a tag of their own.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from clinprompt.errors import InputCorrupt
from clinprompt.files import sha256_file
from clinprompt.yaml_text import parse_yaml
from registry.package import check_files, verify_payload

FILES_TAG = "file_digests"
PAYLOAD, RECORD = "artifacts/payload", "artifacts/record"
SCRIPT, MLMODEL = "model_script.py", "MLmodel"
# What a plain `mlflow.pyfunc.load_model` leaves in a local store. Neither is taken from a download: compiled code would
# be run instead of the script whose digest is checked.
LEFT_BY_MLFLOW = ("__pycache__", "registered_model_meta")


def digests_tag(folder: Path) -> str:
    """The SHA-256 of each file beside the payload by its path in the folder, as JSON: the value of `FILES_TAG`."""
    digests = {name: sha256_file(folder / name) for name in _files(folder)}
    return json.dumps(digests, separators=(",", ":"), sort_keys=True)


def verify_model(folder: Path, payload_digest: str, recorded: str) -> None:
    """Check every file of a model's folder, and that MLflow would run the payload's own script and nothing else.

    Args:
        folder: the downloaded model.
        payload_digest: of the payload's manifest.
        recorded: the value of `FILES_TAG`.

    Raises:
        InputMissing: a file is missing.
        InputCorrupt: a file's bytes differ, a file is too many, or MLmodel says more than this pipeline writes.
    """
    verify_payload(folder / PAYLOAD, payload_digest)
    check_files(folder, set(_files(folder)), _parsed(recorded), stranger="was not registered with the model")
    if sha256_file(folder / SCRIPT) != sha256_file(folder / PAYLOAD / SCRIPT):
        raise InputCorrupt(f"{folder / SCRIPT} is not the payload's script: don't use this model.")
    check_mlmodel(folder / MLMODEL)


def check_mlmodel(path: Path) -> None:
    """Check that an MLmodel file has the keys that this pipeline writes, and no others.

    Raises:
        InputCorrupt: it is no YAML mapping, a key is unknown or missing, or a value would make MLflow run other code.
    """
    try:
        _MLmodel.model_validate(parse_yaml(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputCorrupt(f"{path} is not YAML: don't use this model.") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise InputCorrupt(
            f"{path} does not load the registered script ({where} is not as this pipeline writes it): don't use this "
            "model."
        ) from None


def _files(folder: Path) -> list[str]:
    """The files beside the payload. Links count as files: what they lead to is no part of the model."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    for name in names:
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise InputCorrupt(f"{folder / name} is no regular file: don't use this model.")
    return [name for name in names if not name.startswith(f"{PAYLOAD}/")]


def _parsed(recorded: str) -> dict[str, str]:
    try:
        value = json.loads(recorded)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, Mapping) or SCRIPT not in value or MLMODEL not in value:
        raise InputCorrupt(f"The tag {FILES_TAG!r} of the version lists no digests: don't use this model.")
    return {str(name): str(digest) for name, digest in value.items()}


class _Strict(BaseModel):
    """A part of MLmodel in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), strict=True)


class _Payload(_Strict):
    path: Literal["artifacts/payload"]
    uri: str


class _Record(_Strict):
    path: Literal["artifacts/record"]
    uri: str


class _Artifacts(_Strict):
    payload: _Payload
    record: _Record


class _Environment(_Strict):
    conda: Literal["conda.yaml"]
    virtualenv: Literal["python_env.yaml"]


class _Flavor(_Strict):
    """What MLflow acts on as it loads the model. Each key that leads to code has one possible value."""

    artifacts: _Artifacts
    cloudpickle_version: str
    code: None
    env: _Environment
    loader_module: Literal["mlflow.pyfunc.loaders.code_model"]
    model_code_path: str
    python_version: str
    streamable: Literal[False]

    def model_post_init(self, context: Any) -> None:
        if os.path.basename(self.model_code_path) != SCRIPT:  # MLflow looks for the name in the folder
            raise ValueError(f"must end with {SCRIPT}")


class _Flavors(_Strict):
    python_function: _Flavor


class _Example(_Strict):
    artifact_path: Literal["input_example.json"]
    pandas_orient: Literal["split"]
    serving_input_path: Literal["serving_input_example.json"]
    type: Literal["dataframe"]


class _Signature(_Strict):
    inputs: str
    outputs: str
    params: None


class _MLmodel(_Strict):
    artifact_path: str
    flavors: _Flavors
    is_signature_from_type_hint: Literal[False]
    mlflow_version: str
    model_id: str
    model_size_bytes: int
    model_uuid: str
    prompts: None
    run_id: str
    saved_input_example_info: _Example
    signature: _Signature
    type_hint_from_example: Literal[False]
    utc_time_created: str
