"""What pictures are drawn from: a run's images and features, and the models before and after tuning."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clinprompt.backbones.device import choose_device
from clinprompt.backbones.load import Backbone
from clinprompt.data.dataset import Dataset
from clinprompt.data.preprocessing import AnyPreprocessing, preprocessing_of
from clinprompt.evaluation.curves import evenly
from clinprompt.features.extract import Forward, encoded
from clinprompt.features.image_batches import decoded
from clinprompt.features.precompute import BATCH, WORKERS
from clinprompt.features.store import FeatureStore
from clinprompt.methods import BASELINE
from clinprompt.params import BackboneParams
from clinprompt.training.inputs import open_backbone
from clinprompt.tuned.artifact import TunedModel
from clinprompt.tuned.config import method_config
from clinprompt.understanding.models import InspectedModel, tuned, zero_shot
from clinprompt.understanding.space import Points
from components.runner import Job


@dataclass
class Scene:
    """The run's files, opened once.

    Attributes:
        name: of the candidate's folder, whose model `model` is.
    """

    job: Job
    dataset: Dataset
    name: str
    model: TunedModel

    @cached_property
    def store(self) -> FeatureStore:
        """The cached features."""
        return FeatureStore.open(self.job.inputs["features"])

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone that they are of, on a GPU where there is one."""
        choice, device = self.job.params(BackboneParams), choose_device()
        return open_backbone(choice.name, choice.path, device, self.store, self.job.inputs["features"])

    @cached_property
    def template(self) -> str:
        """The baseline's: what a class's sentence is before tuning."""
        config = method_config(BASELINE, self.job.params("methods").get(BASELINE, {}), self.dataset.card)
        return str(config.model_dump()["template"])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes' clinical names."""
        return tuple(info.name for info in self.dataset.card.classes)

    @cached_property
    def before(self) -> InspectedModel:
        """The backbone as it is, asked by the baseline's sentences."""
        return zero_shot(self.backbone, self.names, self.template)

    @cached_property
    def after(self) -> InspectedModel:
        """The candidate."""
        return tuned(self.job.inputs["models"] / self.name, self.model, self.backbone)

    def preprocessing(self, which: InspectedModel) -> AnyPreprocessing:
        """Of the images that a model reads."""
        return self.backbone.preprocessing if which.frozen else preprocessing_of(self.model.record.preprocessing)

    def rows(self, split: str) -> pd.DataFrame:
        """At most `explain.images` of a split's images, spread evenly over the classes as they come."""
        rows = self.dataset.split(split).drop_duplicates("id")
        rows = rows.sort_values(["label", "path"], ignore_index=True)
        return rows.iloc[evenly(len(rows), self.job.params("explain").images)]

    @cached_property
    def tested(self) -> Points:
        """What the tuned model makes of the test images."""
        return self.points("test", self.after)

    def points(self, split: str, which: InspectedModel) -> Points:
        """What a model makes of a split's images; texts that depend on the image are averaged over the images."""
        features = np.concatenate(list(self._features(self.rows(split), which)))  # [n, 1 + texts, e]
        return Points(features[:, 0], features[:, 1:].mean(0) if features.shape[1] > 1 else None)

    def images(self, points: Points) -> Tensor:
        """Features [n, e] as a tensor on the backbone's device."""
        return torch.from_numpy(points.images).to(self.backbone.device)

    def _features(self, rows: pd.DataFrame, which: InspectedModel) -> Iterator[np.ndarray]:
        device = self.backbone.device

        def packed(inputs: Tensor) -> Tensor:
            images, texts = which.features(inputs)
            if texts is None:
                return images[:, None]
            return torch.cat([images[:, None], texts.expand(len(images), -1, -1)], dim=1)

        if which.frozen:
            forward = Forward(lambda x: packed(x.to(device)), BATCH, device, "float32")
            for part in torch.from_numpy(self.store.get(rows["id"].tolist())).split(BATCH):
                yield forward(part).cpu().numpy()
            return
        batches = encoded(
            lambda pixels: packed(which.prepare(pixels.to(device))),
            self.dataset.items(rows),
            self.preprocessing(which),
            device,
            intensity=self.dataset.card.intensity,
            batch_size=BATCH,
            workers=WORKERS,
            precision="float32",
        )
        yield from (part for _, part in batches)

    def pixels(self, rows: pd.DataFrame, which: InspectedModel) -> Tensor:
        """Preprocessed pixels [n, 3, S, S] of a few images, or volumes [n, 1, D, H, W]."""
        batches = decoded(
            self.dataset.items(rows),
            self.preprocessing(which),
            self.dataset.card.intensity,
            batch_size=len(rows),
            workers=0,
            ahead=0,
        )
        return torch.from_numpy(next(iter(batches))[1].copy()).to(self.backbone.device)
