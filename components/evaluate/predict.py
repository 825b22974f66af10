"""Predictions that take the method's own code and the backbone, from cached features or from images."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from clinprompt.backbones.device import choose_device
from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.data.dataset import Dataset
from clinprompt.data.preprocessing import preprocessing_of
from clinprompt.features.extract import Forward, encoded
from clinprompt.features.precompute import BATCH, WORKERS
from clinprompt.features.store import FeatureStore
from clinprompt.params import BackboneParams
from clinprompt.progress import progress
from clinprompt.prompting.base import PromptMethod
from clinprompt.tuned.artifact import PROMPTS, TunedModel
from clinprompt.tuned.restore import answers, answers_of_pixels, restore
from clinprompt.tuned.transfer import for_classes
from components.runner import Job


def predict(
    job: Job, model: TunedModel, dataset: Dataset, rows: pd.DataFrame, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Float64 logits [n, C] of the rows' images, and the estimates [n] of the score that the model tells.

    Args:
        rows: of the dataset.
        features: raw ones [n, e] of the same images; not read by a method that needs pixels.

    Raises:
        InputMissing, InputCorrupt: the model does not fit the backbone, or an image is not the manifest's.
        GpuOutOfMemory: a single image is too much.
    """
    backbone = _backbone(job)
    method = restore(model.record.to_json(), job.inputs["model"] / PROMPTS, backbone)
    found, c = _answers(method, backbone, model, dataset, rows, features), len(dataset.card.classes)
    return found[:, :c], found[:, c] if model.record.score else None


def predict_novel(job: Job, model: TunedModel, dataset: Dataset, rows: pd.DataFrame) -> np.ndarray:
    """Float64 logits [n, N] of the rows' images among the card's novel classes, to which the model is moved.

    Raises:
        NotTrained: it can't answer to other classes than its own.
        InputMissing, InputCorrupt, GpuOutOfMemory: as of `predict`.
    """
    backbone, novel = _backbone(job), dataset.card.novel_classes
    method = for_classes(model.record, job.inputs["model"], novel, backbone, job.inputs)
    features = FeatureStore.open(job.inputs["features"]).get(rows["id"].tolist())
    return _answers(method, backbone, model, dataset, rows, features)[:, : len(novel)]


def _backbone(job: Job) -> Backbone:
    choice = job.params(BackboneParams)
    return load_backbone(choice.name, choice.path, choose_device())


def _answers(
    method: PromptMethod,
    backbone: Backbone,
    model: TunedModel,
    dataset: Dataset,
    rows: pd.DataFrame,
    features: np.ndarray,
) -> np.ndarray:
    """What `answers` gives of the rows' images, float64."""
    if model.record.images == "features":
        batches = _from_features(method, backbone, features)
    else:
        encoded_batches = encoded(
            lambda pixels: answers_of_pixels(method, backbone, pixels),
            dataset.items(rows),
            preprocessing_of(model.record.preprocessing),
            backbone.device,
            intensity=dataset.card.intensity,
            batch_size=BATCH,
            workers=WORKERS,
            precision="float32",
        )
        batches = (part for _, part in encoded_batches)
    parts = list(progress(batches, "predicting", total=-(-len(rows) // BATCH), unit="batch"))
    return np.concatenate(parts).astype(np.float64)


def _from_features(method: PromptMethod, backbone: Backbone, features: np.ndarray) -> Iterator[np.ndarray]:
    forward = Forward(lambda x: answers(method, x.to(backbone.device)), BATCH, backbone.device, "float32")
    for start in range(0, len(features), BATCH):
        yield forward(torch.from_numpy(features[start : start + BATCH])).cpu().numpy()
