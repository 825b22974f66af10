"""Makes the pictures: gathers what the library needs from the run's files, and writes what it gives."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clinprompt.backbones.device import choose_device
from clinprompt.backbones.load import Backbone
from clinprompt.data.codecs import decode_image
from clinprompt.data.dataset import Dataset, read_image
from clinprompt.data.preprocessing import AnyPreprocessing, preprocessing_of
from clinprompt.data.regions import read_regions
from clinprompt.errors import BadParams
from clinprompt.evaluation.curves import evenly
from clinprompt.features.extract import Forward, encoded
from clinprompt.features.image_batches import decoded
from clinprompt.features.precompute import BATCH, WORKERS
from clinprompt.features.store import FeatureStore
from clinprompt.methods import BASELINE
from clinprompt.params import BackboneParams
from clinprompt.prompting.base import Knowledge, Needs, PromptMethod, Task
from clinprompt.prompting.teacher import TeacherBank
from clinprompt.training.inputs import knowledge, open_backbone
from clinprompt.tuned.artifact import TunedModel
from clinprompt.tuned.config import method_config
from clinprompt.understanding import captions
from clinprompt.understanding.attention import relevance
from clinprompt.understanding.descriptions import influence
from clinprompt.understanding.figures import Example, attention_figure, change_figure, save, space_figure
from clinprompt.understanding.intervention import change
from clinprompt.understanding.models import InspectedModel, tuned, zero_shot
from clinprompt.understanding.regions import expected_share, on_grid, share_inside
from clinprompt.understanding.shown import as_seen, shown
from clinprompt.understanding.space import Points, planes
from components.runner import Job


def draw(job: Job, dataset: Dataset, name: str, model: TunedModel) -> dict[str, Any]:
    """Write the pictures of a candidate; what the index says of them.

    Args:
        name: its folder's.

    Raises:
        InputMissing, InputCorrupt: a file of the run is not there, or is not what the others say.
    """
    scene, gallery = _Scene(job, dataset, name, model), _Gallery(job.outputs["pictures"])
    both, words = (scene.before, scene.after), captions.attention(scene.template)
    try:
        gallery.add("attention.png", words, _attention(scene, both), images=True)
    except BadParams as error:  # the image tower is of a kind that can't be opened
        gallery.leave_out(words.title, str(error))
    _regions(scene, both, gallery)
    _space(scene, gallery)
    if scene.after.method is not None:
        _intervention(scene, scene.after.method, gallery)
    if "descriptions" in (model.record.knowledge or {}):
        _descriptions(scene, gallery)
    return gallery.index


@dataclass
class _Gallery:
    folder: Path
    index: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"items": [], "left_out": []})

    def add(self, file: str, words: captions.Caption, what: Figure | pd.DataFrame, *, images: bool = False) -> None:
        """Keep a figure or table; `images`: it shows images of the dataset, which the registry's report leaves out."""
        if isinstance(what, pd.DataFrame):
            what.to_csv(self.folder / file, index=False, lineterminator="\n")
        else:
            save(what, self.folder / file)
        kind = "table" if isinstance(what, pd.DataFrame) else "figure"
        told = {"kind": kind, "file": file, "title": words.title, "caption": words.text, "images": images}
        self.index["items"].append(told)

    def leave_out(self, title: str, why: str) -> None:
        self.index["left_out"].append({"title": title, "why": why})


@dataclass
class _Scene:
    """The run's files, opened once."""

    job: Job
    dataset: Dataset
    name: str
    model: TunedModel

    @cached_property
    def store(self) -> FeatureStore:
        return FeatureStore.open(self.job.inputs["features"])

    @cached_property
    def backbone(self) -> Backbone:
        choice, device = self.job.params(BackboneParams), choose_device()
        return open_backbone(choice.name, choice.path, device, self.store, self.job.inputs["features"])

    @cached_property
    def template(self) -> str:
        """The baseline's: what a class's sentence is before tuning."""
        config = method_config(BASELINE, self.job.params("methods").get(BASELINE, {}), self.dataset.card)
        return str(config.model_dump()["template"])

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.dataset.card.classes)

    @cached_property
    def before(self) -> InspectedModel:
        return zero_shot(self.backbone, self.names, self.template)

    @cached_property
    def after(self) -> InspectedModel:
        return tuned(self.job.inputs["models"] / self.name, self.model, self.backbone)

    def preprocessing(self, which: InspectedModel) -> AnyPreprocessing:
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
        """Preprocessed pixels [n, 3, S, S] of a few images."""
        batches = decoded(
            self.dataset.items(rows),
            self.preprocessing(which),
            self.dataset.card.intensity,
            batch_size=len(rows),
            workers=0,
            ahead=0,
        )
        return torch.from_numpy(next(iter(batches))[1].copy()).to(self.backbone.device)


def _attention(scene: _Scene, both: tuple[InspectedModel, InspectedModel]) -> Figure:
    """Some test images of each class, drawn at random, and what speaks for their class before and after.

    Raises:
        BadParams: the backbone's image tower can't be opened.
    """
    knobs = scene.job.params("explain")
    test = scene.dataset.split("test").drop_duplicates("id")
    picked = []
    for c, label in enumerate(scene.dataset.card.class_ids):
        rows = test[test["label"] == label]
        order = np.random.default_rng([knobs.seed, c]).permutation(len(rows))
        picked.append(rows.iloc[order[: knobs.examples_per_class]])
    rows = pd.concat(picked)
    labels = scene.dataset.labels(rows)
    shares = [
        _relevance(which, scene.pixels(rows, which), torch.tensor(labels, device=scene.backbone.device))
        for which in both
    ]
    seen = as_seen(scene.pixels(rows, scene.before).cpu().numpy(), scene.backbone.preprocessing)
    examples = []
    for n, label in enumerate(labels):
        (before, p_before), (after, p_after) = ((maps[n], float(p[n])) for maps, p in shares)
        image, maps = shown(seen[n], (before, after))
        examples.append(Example(image, int(label), maps, (p_before, p_after)))
    return attention_figure(examples, scene.names)


def _regions(scene: _Scene, both: tuple[InspectedModel, InspectedModel], gallery: _Gallery) -> None:
    """Where the dataset marks regions: the share of the evidence that lies in them, by class and in all."""
    found: list[dict[str, Any]] = []
    rows, card, seen = scene.rows("test"), scene.dataset.card, scene.backbone.preprocessing
    for start in range(0, len(rows), BATCH) if card.regions is not None else ():
        part = rows.iloc[start : start + BATCH]
        labels = torch.tensor(scene.dataset.labels(part), device=scene.backbone.device)
        maps = [_relevance(which, scene.pixels(part, which), labels)[0] for which in both]
        for n, item in enumerate(scene.dataset.items(part)):
            marked, image = read_regions(scene.dataset.images, item[0]), decode_image(read_image(item), card.intensity)
            placed = None if marked is None else on_grid(image, marked, seen)
            if placed is not None:
                shares = {
                    "before": share_inside(maps[0][n], placed),
                    "after": share_inside(maps[1][n], placed),
                    "of the head": expected_share(seen.apply(image)[0], placed),
                }
                found.append({"class": part["label"].iloc[n], **shares})
    if not found:
        return
    frame = pd.DataFrame(found)
    means = pd.concat([frame.groupby("class").mean(), frame.drop(columns="class").mean().to_frame("all classes").T])
    table = means.map(lambda share: "" if np.isnan(share) else f"{share:.1%}").rename_axis("class").reset_index()
    gallery.add("regions.csv", captions.regions(len(found)), table)


def _relevance(which: InspectedModel, pixels: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    parts = [relevance(which, *part) for part in zip(pixels.split(8), labels.split(8), strict=True)]
    maps, p = (torch.cat(some).cpu().numpy() for some in zip(*parts, strict=True))
    return maps, p


def _space(scene: _Scene, gallery: _Gallery) -> None:
    before = scene.points("test", scene.before)
    projected = planes(before, scene.tested)
    figure = space_figure(projected, scene.dataset.labels(scene.rows("test")), scene.names)
    gallery.add("features.png", captions.space(projected, len(before.images)), figure)


def _intervention(scene: _Scene, model: PromptMethod, gallery: _Gallery) -> None:
    """Where a method bends rows of the language model's states: how far, before and after training."""
    task = Task(scene.backbone, scene.names, scene.model.record.seed, model.knowledge_in(model.state()))
    trained = model.bent_rows()
    untrained = None if trained is None else type(model)(task, model.config).eval().bent_rows()
    if trained is None or untrained is None:
        return
    images = scene.images(scene.tested)
    start, end = change(untrained, images), change(trained, images)
    gallery.add("intervention.png", captions.intervention(end), change_figure(start, end))


def _descriptions(scene: _Scene, gallery: _Gallery) -> None:
    path, method = scene.job.inputs["descriptions"], scene.model.record.method
    known: Knowledge = knowledge(Needs(knowledge=frozenset({"descriptions"})), scene.dataset.card.class_ids, path, path)
    bank = TeacherBank.of(Task(scene.backbone, scene.names, 0, known), method)
    images = scene.images(scene.points("val", scene.after))
    labels = torch.tensor(scene.dataset.labels(scene.rows("val")), device=images.device)
    frame = influence(bank, known.descriptions, images, labels, scene.backbone.logit_scale)
    for column in ("net", "own", "others", "turned"):
        frame[column] = [("" if np.isnan(value) else f"{value:+.2f}") for value in frame[column]]
    frame["turned"] = frame["turned"].str.removeprefix("+")
    frame["class"] = [scene.dataset.card.class_ids[c] for c in frame["class"]]
    gallery.add("descriptions.csv", captions.descriptions(method, len(images)), frame)
