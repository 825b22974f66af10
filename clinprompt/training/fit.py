"""Train any method: what it computes in closed form, its descent, and what it chooses on the validation split."""

from clinprompt.prompting.base import PromptMethod
from clinprompt.prompting.batches import Examples
from clinprompt.training.checkpoint import Curves
from clinprompt.training.loop import Run, accuracy, descend


def fit(model: PromptMethod, train: Examples, val: Examples, run: Run) -> Curves:
    """Train a method in place.

    Returns:
        A row of numbers per epoch, as `descend` gives them with the method's own findings; of a method that descends
        nothing, one row with the accuracies.

    Raises:
        BadParams, BatchTooLarge: as `descend` does.
    """
    model.start(train, val)
    curves = descend(model, train, val, model.config, run) if model.descends else [{"epoch": 0}]
    findings = model.findings()
    curves = [{**row, **findings} for row in curves]
    if model.finish(val) or not model.descends:
        scores = {"train_accuracy": accuracy(model, train), "val_accuracy": accuracy(model, val)}
        curves[-1] |= {**model.findings(), **scores}
    return curves
