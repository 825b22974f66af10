"""What is to be promoted: a decision, and the files that the model is made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinprompt.files import sha256_bytes, sha256_file, to_json
from clinprompt.params import RegistryParams
from clinprompt.schema import read_yaml
from registry.package import BackboneFiles
from registry.served_code import code_of


@dataclass(frozen=True)
class PromotionRequest:
    """What a decision and its files say about the model to promote.

    Attributes:
        names: of the experiment and the registered models, with the dataset's name filled in.
        model: the tuned model's folder.
        backbone: finds the backbone's files; called only when there is something to register.
        sample: images that the registered model must be able to classify before it becomes the champion.
    """

    dataset: str
    names: RegistryParams
    decision: Path
    verdict: dict[str, Any]
    card: Path
    model: Path
    descriptions: Path
    manifest: Path
    metrics: Path
    report: Path
    backbone: Callable[[], BackboneFiles]
    sample: Callable[[], Sequence[bytes]]

    @property
    def inputs_digest(self) -> str:
        """Of all that the payload is made from. Cheap: the backbone counts by the digest in model.yaml."""
        parts = {
            "model": self.verdict["chosen"]["model_digest"],
            self.descriptions.name: sha256_file(self.descriptions),
            **{name: sha256_bytes(source) for name, source in code_of(read_yaml(self.model / "model.yaml")).items()},
        }
        return sha256_bytes(to_json(parts).encode())
