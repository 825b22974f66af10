"""Methods built for classes of a card, and trained tensors put into the same method for other classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clinprompt.backbones.load import Backbone
from clinprompt.data.card import ClassInfo
from clinprompt.errors import BadParams, DataRejected, NotTrained
from clinprompt.methods import method
from clinprompt.prompting.base import PromptMethod, Task
from clinprompt.schema import Section
from clinprompt.training.inputs import knowledge
from clinprompt.tuned.artifact import PROMPTS
from clinprompt.tuned.record import ModelRecord
from clinprompt.tuned.restore import restore

LEFT_OUT = "what it trains belongs to the classes that it has seen"


def built(
    cls: type[PromptMethod],
    config: Section,
    seed: int,
    classes: Sequence[ClassInfo],
    backbone: Backbone,
    files: Mapping[str, Path],
) -> PromptMethod:
    """The method, untrained, for some classes in the order of the class indices.

    Args:
        files: a stage's inputs; of them `descriptions` and `hidden_states` are read, where the method needs them.

    Raises:
        NotTrained: the knobs don't fit the backbone, or a class lacks what the method learns from.
        InputMissing, InputCorrupt: the knowledge that it needs is not there, or can't be read.
    """
    ids, names = [info.id for info in classes], tuple(info.name for info in classes)
    try:
        known = knowledge(cls.needs(config), ids, files.get("descriptions"), files.get("hidden_states"))
        return cls(Task(backbone, names, seed, known), config)
    except (BadParams, DataRejected) as error:
        raise NotTrained(str(error)) from None


def for_classes(
    record: ModelRecord, folder: Path, classes: Sequence[ClassInfo], backbone: Backbone, files: Mapping[str, Path]
) -> PromptMethod:
    """A tuned model for these classes, ready to predict: as it is where they are its own, else what it learned moved.

    Args:
        record, folder: the model's.
        files: as of `built`.

    Raises:
        NotTrained: it can't answer to other classes, by what it trains; or not to these, whose names may be too long.
        InputMissing, InputCorrupt: a file is not there, or can't be read.
    """
    original = restore(record.to_json(), folder / PROMPTS, backbone)
    if [(info.id, info.name) for info in classes] == list(zip(record.classes, record.class_names, strict=True)):
        return original
    cls = method(record.method)
    if not cls.transfers(original.config):
        raise NotTrained(LEFT_OUT)
    empty = built(cls, original.config, record.seed, classes, backbone, files)
    return moved(empty, original.trainable_parameters())


@torch.no_grad()
def moved(model: PromptMethod, trained: Mapping[str, Tensor]) -> PromptMethod:
    """`model`, built for new classes, with the tensors that were trained on others; ready to predict.

    Args:
        trained: tensors by name; those that `model` does not train are passed over.

    Raises:
        BadParams: a tensor is missing or has another shape, so that the method can't serve other classes.
    """
    for name, parameter in model.trainable_parameters().items():
        found = trained.get(name)
        if found is None or found.shape != parameter.shape:
            shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise BadParams(
                f"{model.name} can't be moved to other classes with these knobs: its {name} is {shape}, and must be of "
                f"shape {tuple(parameter.shape)}."
            )
        parameter.copy_(found)
    return model.eval()
