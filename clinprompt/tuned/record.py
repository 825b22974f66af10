"""`model.yaml`: what a tuned model is and what it was made from, by digest where that is a file."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.records import Record, RecordPart
from clinprompt.schema import parse_yaml, to_yaml


class BackboneRef(RecordPart):
    """Which backbone a model was tuned on; `embed_dim` is the width e of its features."""

    name: str
    digest: str
    embed_dim: int


class ModelRecord(Record):
    """The whole of a `model.yaml`.

    Attributes:
        candidate: the name under which params.yaml lists it: `method`, or a variant of it.
        predicts_with: "head" where the linear head is all; else the method's own code and its tensors are needed.
        config: the method's knobs.
        classes: ids in the order of the class indices; `class_names` are their clinical names.
        preprocessing: of the images, as `Preprocessing.to_dict` gives it.
        intensity: how images of more than 8 bits become 8-bit ones.
        manifest, support: digests of the manifest and of the training images.
        images: what the method reads of an image.
        dicom: whether some of the images are DICOM files, so that predictions read such, too.
        frames: which frame of a DICOM file of several is the picture, as the card says: "one" and "each" choose none.
        score: the column of the card's record that the model estimates beside the class; None where it does not.
        knowledge: digest of each file of the stage describe that the method needs.
        micro_batches, processes, precision, augmentation, device: how it was trained, as far as that is not usual;
            `cuda` where it was on a GPU, whose rounding is not promised to be the same twice.
    """

    FORMAT: ClassVar[int] = 3
    STAGE: ClassVar[str] = "tune"

    predicts_with: Literal["head", "method"]
    dataset: str
    candidate: str
    method: str
    config: dict[str, Any]
    seed: int
    classes: list[str]
    class_names: list[str]
    backbone: BackboneRef
    preprocessing: dict[str, Any]
    intensity: str | list[float]
    manifest: str
    images: Literal["features", "pixels"]
    knowledge: dict[str, str] | None
    versions: dict[str, str]
    support: str
    trainable_parameters: int
    score: str | None = None
    dicom: bool = False
    frames: str = "one"
    micro_batches: int = 1
    processes: int = 1
    precision: str = "float32"
    augmentation: str | None = None
    device: str = "cpu"

    @property
    def needs_only_head(self) -> bool:
        """Whether the model predicts with its linear head alone."""
        return self.predicts_with == "head"

    def write(self, path: Path) -> None:
        """Write it; equal records give equal bytes."""
        path.write_text(to_yaml(self.to_json(), sort_keys=True, allow_unicode=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "ModelRecord":
        """Read and check a file.

        Raises:
            InputMissing: there is no such file.
            InputCorrupt: it is not a model's record, or one of another version.
        """
        try:
            content = parse_yaml(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputMissing(f"{path} does not exist; run tune again (dvc repro).") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            content = None
        if not isinstance(content, dict):
            raise InputCorrupt(f"{path} is not a model's record. Delete its folder and run tune again.")
        return cls.parse(content, path)
