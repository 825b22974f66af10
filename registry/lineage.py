"""Where a registered model comes from, and what its pages in MLflow say."""

from importlib import metadata
from pathlib import Path
from typing import Any

from clinprompt.data.card import Card
from clinprompt.evaluation.estimate import estimate_text
from clinprompt.evaluation.metric_names import OVERALL
from clinprompt.evaluation.metrics_record import Metrics
from clinprompt.files import sha256_bytes, sha256_file, to_json
from clinprompt.revision import git_commit
from clinprompt.tuned.record import ModelRecord
from registry.model_card import built_on, image_of
from registry.served_code import code_of, distributions

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "components.txt"
_LONGEST_TAG = 5000
USE = (
    "For research on images like those of the dataset, taken and stored the same way. It always names one of the "
    "classes, for images of anything else too; its probabilities are no diagnosis. It is no medical device."
)
SERVED_WITH = (
    "mlflow",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "safetensors",
    "pillow",
    "numpy",
    "pandas",
    "tifffile",
    "huggingface_hub",
)

# What pydicom undoes compressed pixels with; it looks for them itself.
UNCOMPRESSED_WITH = {"pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg"}


def lineage(model: ModelRecord, model_digest: str, digests: dict[str, str], params: dict[str, Any]) -> dict[str, str]:
    """Where a model comes from, as flat text values: they become the version's tags and `lineage.json`.

    Args:
        model: the tuned model's record.
        digests: of the payload, manifest, knowledge, decision, …, by the name they get here.
        params: the values that made and judged the model; their digest is recorded.
    """
    facts = {
        "dataset": model.dataset,
        "candidate": model.candidate,
        "method": model.method,
        "seed": str(model.seed),
        "model_digest": model_digest,
        "backbone": model.backbone.name,
        "backbone_digest": model.backbone.digest,
        "params_digest": sha256_bytes(to_json(params).encode()),
        **digests,
    }
    if LOCK.is_file():
        facts["requirements_digest"] = sha256_file(LOCK)
    commit = git_commit()
    if commit:
        facts["git_commit"] = commit
    return facts


def requirements(model: ModelRecord) -> list[str]:
    """What a served model needs, pinned to the versions it was verified with.

    Args:
        model: the tuned model's record; a method's own code needs what it imports, and open_clip's tokenizers.
    """
    more = set() if model.needs_only_head else {"transformers", *distributions(code_of(model))}
    if "pydicom" in more:
        more |= UNCOMPRESSED_WITH
    names = [*SERVED_WITH, *sorted({name.lower() for name in more} - set(SERVED_WITH))]
    # "+cpu" and the like name one index's build of a version.
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in names]


def summary(card: Card) -> str:
    """What models of a dataset do and are for, in two sentences: the description of the registered model."""
    names = ", ".join(c.name for c in card.classes)
    return f"{card.title}: classifies one {image_of(card)} into {names}. {USE}"


def use_tags(card: Card) -> dict[str, str]:
    """Class names and intended use, as tags of the registered model and its versions."""
    names = "; ".join(f"{c.id}: {c.name}" for c in card.classes)
    return {"class_names": names[:_LONGEST_TAG], "intended_use": USE}


def about(card: Card, model: ModelRecord, metrics: Metrics) -> str:
    """What a model is, how good and what for, in Markdown: the description of its version."""
    classes = "\n".join(f"- `{c.id}`: {c.name} ({c.phrase})" for c in card.classes)
    rows = "\n".join(
        f"| {name} | {estimate_text(metrics.val.get(name))} | {estimate_text(metrics.test.get(name))} |"
        for name in OVERALL
        if name in metrics.test
    )
    return f"""# {card.title}: {model.candidate}

Classifies one {image_of(card)} into:

{classes}

{built_on(model)} Method `{model.method}`, seed {model.seed}, with
{model.trainable_parameters} trainable parameters, on the training split of `{model.dataset}`.

## Metrics

{_intervals(metrics)}

| metric | validation | test |
|---|---|---|
{rows}

## Use and limits

{USE}

## Data

Source: {card.source}. Licence: {card.licence}.
"""


def _intervals(metrics: Metrics) -> str:
    """What the intervals are over, and what was not checked."""
    sentence = f"With intervals over {metrics.patients.unit}."
    return sentence if metrics.patients.warning is None else f"{sentence}\n\n**{metrics.patients.warning}**"
