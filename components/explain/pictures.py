"""Makes the pictures: gives the library what it needs of the scene, and writes what it draws."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clinprompt.data.codecs import decode_image
from clinprompt.data.dataset import Dataset, read_image
from clinprompt.data.regions import read_regions
from clinprompt.errors import BadParams
from clinprompt.features.precompute import BATCH
from clinprompt.prompting.base import Knowledge, Needs, PromptMethod, Task
from clinprompt.prompting.teacher import TeacherBank
from clinprompt.training.inputs import knowledge
from clinprompt.tuned.artifact import TunedModel
from clinprompt.understanding import captions
from clinprompt.understanding.attention import relevance
from clinprompt.understanding.descriptions import influence
from clinprompt.understanding.figures import Example, attention_figure, change_figure, save, space_figure
from clinprompt.understanding.intervention import change
from clinprompt.understanding.models import InspectedModel
from clinprompt.understanding.regions import expected_share, on_grid, share_inside
from clinprompt.understanding.shown import as_seen, shown
from clinprompt.understanding.space import planes
from components.explain.scene import Scene
from components.runner import Job


def draw(job: Job, dataset: Dataset, name: str, model: TunedModel) -> dict[str, Any]:
    """Write the pictures of a candidate; what the index says of them.

    Args:
        name: its folder's.

    Raises:
        InputMissing, InputCorrupt: a file of the run is not there, or is not what the others say.
    """
    scene, gallery = Scene(job, dataset, name, model), _Gallery(job.outputs["pictures"])
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


def _attention(scene: Scene, both: tuple[InspectedModel, InspectedModel]) -> Figure:
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


def _regions(scene: Scene, both: tuple[InspectedModel, InspectedModel], gallery: _Gallery) -> None:
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


def _space(scene: Scene, gallery: _Gallery) -> None:
    before = scene.points("test", scene.before)
    projected = planes(before, scene.tested)
    figure = space_figure(projected, scene.dataset.labels(scene.rows("test")), scene.names)
    gallery.add("features.png", captions.space(projected, len(before.images)), figure)


def _intervention(scene: Scene, model: PromptMethod, gallery: _Gallery) -> None:
    """Where a method bends rows of the language model's states: how far, before and after training."""
    task = Task(scene.backbone, scene.names, scene.model.record.seed, model.knowledge_in(model.state()))
    trained = model.bent_rows()
    untrained = None if trained is None else type(model)(task, model.config).eval().bent_rows()
    if trained is None or untrained is None:
        return
    images = scene.images(scene.tested)
    start, end = change(untrained, images), change(trained, images)
    gallery.add("intervention.png", captions.intervention(end), change_figure(start, end))


def _descriptions(scene: Scene, gallery: _Gallery) -> None:
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
