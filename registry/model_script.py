"""The served model: MLflow runs this file beside a payload folder, in an environment that has no clinprompt.

Everything that decides a prediction lies in the payload, and every file of it is checked against the payload's
manifest before it is read; the payload's own code is run under a package name of its own, so that two models in one
process never share code.
"""

import ast
import base64
import hashlib
import importlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import open_clip
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

BATCH = 32
LONGEST_PATH = 4096  # longer texts are base64
CODE, OWN_NAME = "code", "clinprompt"
IMAGE_FOLDER = "CLINPROMPT_IMAGE_FOLDER"


class PromptTunedClassifier(mlflow.pyfunc.PythonModel):
    """A frozen vision-language model with what was tuned.

    Takes a table with the column `image`: an encoded image's bytes, the same in base64 or as a data URL, or a path: a
    `pathlib.Path`, which no request can hold, or a text, which is opened only below the folder that the operator names
    in CLINPROMPT_IMAGE_FOLDER. An image is a picture, in DICOM only for models that were tuned on such: of a
    file with several frames the one that the dataset's card chooses, where it does; for models of volumes it is a NIfTI
    file or a zipped DICOM series.
    Gives `label`, `probability`, one `p_<class>` column per class, and for a model that estimates a score of the
    subject, as the MMSE, `<score>_estimate`; row by row. The probabilities are those after temperature scaling. Where
    the calibration images were enough, also `prediction_set`, the list of the classes that the image may be of (it can
    be empty), and `abstain`, whether the model is too unsure to answer.
    """

    def load_context(self, context: Any) -> None:
        """Check the payload's digests, then build what predicts."""
        folder = Path(context.artifacts["payload"])
        files = _verify(folder)
        # A name for each load: what the code finds beside itself lies in a folder that may go with the model.
        package = f"clinprompt_payload_{_sha256(folder / 'manifest.json')[:32]}_{secrets.token_hex(4)}"
        sys.meta_path.insert(0, _Code(package, folder, files))
        spec = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self._classes: list[str] = spec["classes"]
        self._score: str | None = spec.get("score")
        fitted = folder / "calibration.json"
        self._calibration: dict[str, Any] = json.loads(fitted.read_text(encoding="utf-8")) if fitted.is_file() else {}
        self._intensity, self._max_pixels = spec["intensity"], spec["max_pixels"]
        kind = _LinearHead if spec["predicts_with"] == "head" else _Method
        self._model = kind(folder, spec, package)
        codecs = importlib.import_module(f"{package}.data.codecs")
        self._decode = partial(codecs.decode_image, frames=spec.get("frames", "one"))
        self._read_file = codecs.read_file
        preprocessing = importlib.import_module(f"{package}.data.preprocessing")
        self._preprocessing = preprocessing.preprocessing_of(spec["preprocessing"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify every row; ValueError names the first row that is not an image."""
        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        if "image" not in frame.columns:
            raise ValueError(f"The input needs a column 'image'; it has {sorted(map(str, frame.columns))}.")
        images = list(frame["image"])
        answers = [self._answers(images[start : start + BATCH], start) for start in range(0, len(images), BATCH)]
        width = len(self._classes)
        found = np.concatenate(answers) if answers else np.zeros((0, width + 1))
        probabilities = _softmax(found[:, :width] / self._calibration.get("temperature", 1.0))
        best = probabilities.argmax(axis=1)
        columns: dict[str, Any] = {
            "label": [self._classes[k] for k in best],
            "probability": probabilities.max(axis=1, initial=0.0),
        }
        columns |= {f"p_{name}": probabilities[:, k] for k, name in enumerate(self._classes)}
        columns |= self._unsure(probabilities)
        if self._score is not None:
            columns[f"{self._score}_estimate"] = found[:, width]
        return pd.DataFrame(columns, index=frame.index)

    def _unsure(self, probabilities: np.ndarray) -> dict[str, Any]:
        """What the validation split can tell of how sure to be, as columns."""
        if not self._calibration:
            return {}
        columns: dict[str, Any] = {}
        thresholds = self._calibration["prediction_sets"]["thresholds"]
        if thresholds is not None:
            sets = probabilities >= np.array([thresholds[name] for name in self._classes])
            columns["prediction_set"] = [[self._classes[k] for k in np.flatnonzero(row)] for row in sets]
        least = self._calibration["abstention"]["threshold"]
        if least is not None:
            columns["abstain"] = probabilities.max(axis=1, initial=0.0) < least
        return columns

    def _answers(self, images: list[Any], start: int) -> np.ndarray:
        pixels = torch.from_numpy(np.stack([self._read(image, start + k) for k, image in enumerate(images)]))
        # cuDNN would otherwise round float32 to TF32.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            return self._model.answers(pixels)

    def _read(self, image: Any, row: int) -> np.ndarray:
        problem = f"Row {row} of the input can't be read as an image"
        try:
            data = _bytes(image, self._read_file)
        except ValueError as error:
            raise ValueError(f"{problem}: {error}") from None
        try:
            return self._preprocessing.apply(self._decode(data, self._intensity, self._max_pixels))
        except (ValueError, OSError):
            # A decoder's own words may hold what is in the file.
            raise ValueError(
                f"{problem}: it is broken, too large, of several frames, or of a format that is not read."
            ) from None


class _LinearHead:
    """An image tower with one tuned weight vector per class."""

    def __init__(self, folder: Path, spec: dict[str, Any], package: str) -> None:
        head = {name: values.astype(np.float64) for name, values in load_file(folder / "head.safetensors").items()}
        self._weight, self._scale, self._bias = head["weight"], head["scale"].item(), head.get("bias", 0.0)
        self._device = _device()
        self._tower = _image_tower(_backbone_folder(folder, spec["backbone"]), spec["backbone"]).to(self._device)

    def answers(self, pixels: torch.Tensor) -> np.ndarray:
        """Float64 logits [B, C] of preprocessed pixels [B, 3, S, S]."""
        v = self._tower(pixels.to(self._device)).double().cpu().numpy()
        v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
        logits: np.ndarray = self._scale * (v @ self._weight.T) + self._bias
        return logits


class _Method:
    """A tuned method with both towers, run by the code in the payload."""

    def __init__(self, folder: Path, spec: dict[str, Any], package: str) -> None:
        backbones, self._restore = (
            importlib.import_module(f"{package}.{name}") for name in ("backbones.load", "tuned.restore")
        )
        backbone_folder = _backbone_folder(folder, spec["backbone"])
        self._backbone = backbones.load_backbone(spec["backbone"]["name"], backbone_folder, _device())
        self._method = self._restore.restore(spec, folder / "prompts.safetensors", self._backbone)

    def answers(self, pixels: torch.Tensor) -> np.ndarray:
        """Float64 logits [B, C] of preprocessed pixels [B, 3, S, S]; with the estimate of a score [B, C + 1]."""
        found = self._restore.answers_of_pixels(self._method, self._backbone, pixels)
        values: np.ndarray = found.double().cpu().numpy()
        return values


class _Code(MetaPathFinder, Loader):
    """The modules below a payload's `code`, which name each other `clinprompt`, under the package name `package`.

    Their sources are read and checked now; later imports run what was checked.
    """

    def __init__(self, package: str, folder: Path, files: Mapping[str, str]) -> None:
        self._package = package
        self._modules: dict[str, tuple[Path, bytes]] = {}
        for name in files:
            path = Path(name)
            if path.parts[0] == CODE and path.suffix == ".py":
                source = (folder / name).read_bytes()
                _compare(folder / name, hashlib.sha256(source).hexdigest(), files[name])
                parts = [*path.parts[1:-1], *([] if path.name == "__init__.py" else [path.stem])]
                self._modules[".".join([package, *parts])] = folder / name, source

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """How a module of the package is loaded; None for all others."""
        if fullname not in self._modules:
            return None
        file = self._modules[fullname][0]
        spec = spec_from_loader(fullname, self, origin=str(file), is_package=file.name == "__init__.py")
        if spec is not None:
            spec.has_location = True  # gives the module its __file__
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's source, its imports renamed. No compiled copy is read or written."""
        file, source = self._modules[module.__name__]
        tree = ast.parse(source, str(file))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == OWN_NAME:
                node.module = self._package + node.module.removeprefix(OWN_NAME)
        exec(compile(tree, str(file), "exec"), module.__dict__)  # noqa: S102 - verified above


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is missing; the model was not copied completely.")
    _compare(path, _sha256(path), expected)


def _compare(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise ValueError(f"{path} was changed after the model was registered (its SHA-256 is not {expected}).")


def _verify(folder: Path) -> dict[str, str]:
    """Check that the payload holds exactly the manifest's files with their bytes; return their digests by name."""
    files: dict[str, str] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    extra = sorted(present - set(files) - {"manifest.json"})
    if extra:
        raise ValueError(f"{folder / extra[0]} is not in the payload's manifest.")
    for name, digest in files.items():
        _check(folder / name, digest)
    return files


def _backbone_folder(payload: Path, reference: dict[str, Any]) -> Path:
    """The folder with the backbone's files: in the payload, below CLINPROMPT_BACKBONES, or from the hub.

    Without that variable, it is looked for in the user's cache, where `python -m clinprompt.backbones.fetch` puts it.
    """
    if reference["embedded"]:
        return payload / "backbone"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(os.environ.get("CLINPROMPT_BACKBONES") or Path(cache, "clinprompt", "backbones"), reference["name"])
    if not folder.is_dir():
        if reference["hub"] is None:
            raise ValueError(
                f"The backbone {reference['name']!r} is not part of this model. Put its folder, named "
                f"{reference['name']!r}, into a folder and set CLINPROMPT_BACKBONES to that one's path."
            )
        folder = _download(reference)
    for name, digest in reference["files"].items():
        _check(folder / name, digest)
    return folder


def _download(reference: dict[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download

    hub = reference["hub"]
    paths = [hf_hub_download(hub["repo"], name, revision=hub["revision"]) for name in sorted(reference["files"])]
    return Path(paths[0]).parent


def _image_tower(folder: Path, reference: dict[str, Any]) -> torch.nn.Module:
    """open_clip's image tower [B, 3, S, S] -> [B, e]. The text tower isn't needed: its stand-in is one token wide."""
    config = json.loads((folder / reference["config"]).read_text(encoding="utf-8"))["model_cfg"]
    model = open_clip.CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg={**config["vision_cfg"], "timm_model_pretrained": False},
        text_cfg={"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1},
        quick_gelu=config.get("quick_gelu", False),
    )
    model.visual.load_state_dict(_visual_weights(folder / reference["weights"]))
    return model.visual.eval().requires_grad_(False)


def _visual_weights(path: Path) -> dict[str, torch.Tensor]:
    prefix = "visual."
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a dict
            return {name.removeprefix(prefix): file.get_tensor(name).float() for name in names}
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    state = {k.removeprefix("module."): v for k, v in state.items()}
    return {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}


def _bytes(image: Any, read_file: Callable[[Path], bytes]) -> bytes:
    """An image's encoded bytes from bytes, base64 (also in lines, or as a data URL) or a file's path.

    Args:
        read_file: reads a file, unless it is larger than images are.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, os.PathLike):
        try:
            return read_file(Path(image))
        except OSError as error:
            raise ValueError(f"{image}: {error.strerror}") from None
    if not isinstance(image, str):
        raise ValueError(f"expected bytes, base64 text or a path, found {type(image).__name__}")
    file = _file_of(image) if len(image) < LONGEST_PATH else None
    if file is not None:
        return read_file(file)
    text = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise ValueError(
            f"the text is neither base64 nor the path of a file below the folder that {IMAGE_FOLDER} names; in a "
            "program of your own give a pathlib.Path"
        ) from None


def _file_of(text: str) -> Path | None:
    """The file that a text names below the operator's folder, links followed; None for any other text.

    A request must not learn which other files there are, so those are not told from files that are missing.
    """
    folder = os.environ.get(IMAGE_FOLDER)
    if not folder:
        return None
    try:
        root = Path(folder).resolve()
        path = (root / text).resolve()
        return path if path.is_relative_to(root) and path.is_file() and os.access(path, os.R_OK) else None
    except (OSError, ValueError, RuntimeError):  # a name that can be none, or links that lead in a circle
        return None


mlflow.models.set_model(PromptTunedClassifier())
