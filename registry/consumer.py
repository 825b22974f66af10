"""The consumers' door: the model that carries an alias, checked against its digests before anything of it runs."""

import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import read_json, sha256_file
from registry import tracking
from registry.package import verify_payload
from registry.versions import CHAMPION, Version, by_alias

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

SCRIPT_NAME = "model_script.py"


class Champion:
    """A registered version. Facts come from its tags; its files are downloaded when they are first needed.

    Attributes:
        name: the registered model's name.
        version: its number there.
        model_digest: of the tuned folder that it was packaged from.
        payload_digest: of everything that decides its predictions.
    """

    def __init__(self, version: Version) -> None:
        self.name = version.name
        self.version = version.number
        self.model_digest = version.tag("model_digest")
        self.payload_digest = version.tag("payload_digest")

    @cached_property
    def _download(self) -> tempfile.TemporaryDirectory[str]:
        client = tracking.connect()
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        folder = tempfile.TemporaryDirectory(prefix="clinprompt-model-")
        with tracking.service_errors():
            uri = client.get_model_version_download_uri(self.name, str(self.version))
            try:
                download_artifacts(artifact_uri=uri, dst_path=folder.name)
            except (OSError, MlflowException) as error:
                if tracking.is_away(error):
                    raise
                raise InputMissing(
                    f"The files of {self.name!r} version {self.version} can't be read: {error}"
                ) from None
        return folder

    @cached_property
    def model_folder(self) -> Path:
        """The downloaded MLflow model, whose code and payload have the digests that the registry records."""
        mlmodel_files = sorted(Path(self._download.name).rglob("MLmodel"))
        if not mlmodel_files:
            raise InputMissing(f"Version {self.version} of {self.name!r} has no MLmodel file in the artifact store.")
        for compiled in sorted(mlmodel_files[0].parent.glob("__pycache__")):
            shutil.rmtree(compiled)  # Python would run it instead of the script whose digest is checked
        _verify_model(mlmodel_files[0].parent, self.payload_digest)
        return mlmodel_files[0].parent

    @property
    def folder(self) -> Path:
        """The payload's folder, verified."""
        return self.model_folder / "artifacts" / "payload"

    @property
    def classes(self) -> list[str]:
        """Class ids in the order of the columns of `predict`."""
        spec = read_json(self.folder / "model.json")
        return [str(name) for name in spec["classes"]]

    @cached_property
    def model(self) -> "PyFuncModel":
        """The MLflow model, loaded."""
        import mlflow

        return mlflow.pyfunc.load_model(str(self.model_folder))

    def predict(self, images: list[bytes]) -> np.ndarray:
        """Probabilities [n, C] of encoded images."""
        import pandas as pd

        table: Any = self.model.predict(pd.DataFrame({"image": images}))
        probabilities: np.ndarray = table[[f"p_{name}" for name in self.classes]].to_numpy(dtype=np.float64)
        return probabilities


def champion(name: str, alias: str = CHAMPION) -> Champion | None:
    """The version of the registered model `name` that carries the alias; None when there is none yet.

    Raises:
        ServiceDown: the MLflow server does not answer.
        InputCorrupt: the version was not made by this pipeline.
    """
    version = by_alias(name, alias)
    return Champion(version) if version is not None else None


def load(name: str, alias: str = CHAMPION) -> "PyFuncModel":
    """The model that carries the alias, ready to predict; every digest is checked before its code is run.

    Raises:
        InputMissing: no version carries the alias.
        InputCorrupt: a file differs from what was registered.
        ServiceDown: the MLflow server does not answer.
    """
    registered = champion(name, alias)
    if registered is None:
        raise InputMissing(f"No version of {name!r} carries the alias {alias!r} at {tracking.shown_uri()}.")
    return registered.model


def _verify_model(folder: Path, payload_digest: str) -> None:
    """Check the payload, and that MLflow would run the payload's own script and nothing else."""
    verify_payload(folder / "artifacts" / "payload", payload_digest)
    flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
    flavor = flavors.get("python_function", {})
    expected = {"loader_module": "mlflow.pyfunc.loaders.code_model", "model_code_path": SCRIPT_NAME}
    actual = {"loader_module": flavor.get("loader_module"), "model_code_path": _name(flavor.get("model_code_path"))}
    payload = (flavor.get("artifacts") or {}).get("payload") or {}
    if actual != expected or flavor.get("code") or payload.get("path") != "artifacts/payload":
        raise InputCorrupt(f"{folder / 'MLmodel'} does not load the registered script: don't use this model.")
    if sha256_file(folder / SCRIPT_NAME) != sha256_file(folder / "artifacts" / "payload" / SCRIPT_NAME):
        raise InputCorrupt(f"{folder / SCRIPT_NAME} was changed after registration: don't use this model.")


def _name(path: str | None) -> str | None:
    return Path(path).name if path else None
