"""The consumers' door: the model that carries an alias, checked against its digests before anything of it runs."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clinprompt.errors import InputMissing
from clinprompt.files import read_json, remove
from clinprompt.scratch import ScratchFolder
from registry import signature, tracking
from registry.model_folder import FILES_TAG, LEFT_BY_MLFLOW, MLMODEL, PAYLOAD, verify_model
from registry.versions import CHAMPION, Version, by_alias

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.pyfunc import PyFuncModel

    from registry.keys import PrivateKey, TokenSigner


class Champion:
    """A registered version. Facts come from its tags; its files are downloaded when they are first needed.

    Attributes:
        name: the registered model's name.
        version: its number there.
        model_digest: of the tuned folder that it was packaged from.
        payload_digest: of everything that decides its predictions.
        signature_checked: whether a key was there to check the signature by, once the files were.
    """

    signature_checked = False

    def __init__(self, version: Version) -> None:
        self.name = version.name
        self.version = version.number
        self.model_digest = version.tag("model_digest")
        self.payload_digest = version.tag("payload_digest")
        self._registered = version

    @cached_property
    def _download(self) -> ScratchFolder:
        client = tracking.connect()
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        folder = ScratchFolder("model")
        target = Path(folder.name) / "download"
        target.mkdir()
        with tracking.service_errors():
            uri = client.get_model_version_download_uri(self.name, str(self.version))
            try:
                download_artifacts(artifact_uri=uri, dst_path=str(target))
            except (OSError, MlflowException) as error:
                if tracking.is_away(error):
                    raise
                raise InputMissing(
                    f"The files of {self.name!r} version {self.version} can't be read: {error}"
                ) from None
        return folder

    @cached_property
    def _files(self) -> Path:
        """The downloaded MLflow model, each of whose files has the digest that the registry records."""
        scratch = Path(self._download.name)
        mlmodel_files = sorted(scratch.rglob(MLMODEL))
        if not mlmodel_files:
            raise InputMissing(f"Version {self.version} of {self.name!r} has no MLmodel file in the artifact store.")
        folder = mlmodel_files[0].parent.rename(scratch / signature.SIGNED_NAME)
        for name in LEFT_BY_MLFLOW:
            remove(folder / name)
        verify_model(folder, self.payload_digest, self._registered.tag(FILES_TAG))
        return folder

    @cached_property
    def model_folder(self) -> Path:
        """The same, whose signature is right where a key asks for one."""
        self.signature_checked = signature.check(self.name, self.version, self._registered.tags, self._files)
        return self._files

    def sign(self, key: "PrivateKey | TokenSigner") -> str:
        """Sign the files, once each digest is checked; from now on the signature, which is returned, is the version's.

        It is checked at once, where a key asks for that.

        Raises:
            InputMissing, InputCorrupt: as `model_folder`; or there is no identity token that is valid now.
            BadParams, ServiceDown: as `signature.made`.
        """
        text = signature.made(self._files, key)
        self._registered = replace(self._registered, tags=self._registered.tags | {signature.SIGNATURE: text})
        _ = self.model_folder
        return text

    @property
    def folder(self) -> Path:
        """The payload's folder, verified."""
        return self.model_folder / PAYLOAD

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

    def answers(self, images: list[bytes]) -> "pd.DataFrame":
        """What the model says of encoded images: `label`, `probability`, `p_<class>` and, where it estimates a score of
        the subject, `<score>_estimate`."""
        import pandas as pd

        table: Any = self.model.predict(pd.DataFrame({"image": images}))
        return pd.DataFrame(table)

    def predict(self, images: list[bytes]) -> np.ndarray:
        """Probabilities [n, C] of encoded images."""
        table = self.answers(images)
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
