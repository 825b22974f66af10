"""What is written beside the payload: where the model comes from, and a card that people read."""

import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from clinprompt.data.card import Card
from clinprompt.files import sha256_bytes, sha256_file, to_json
from clinprompt.tuned.artifact import needs_only_head
from registry.served_code import code_of, distributions

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "components.txt"
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "kappa", "quadratic_kappa", "ece", "brier")
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


def lineage(
    spec: dict[str, Any], decision: dict[str, Any], digests: dict[str, str], params: dict[str, Any]
) -> dict[str, str]:
    """Where a model comes from, as flat text values: they become the version's tags and `lineage.json`.

    Args:
        spec: the tuned model's model.yaml.
        digests: of the payload, manifest, knowledge, decision, …, by the name they get here.
        params: the values that made and judged the model; their digest is recorded.
    """
    facts = {
        "dataset": spec["dataset"],
        "candidate": spec["candidate"],
        "method": spec["method"],
        "seed": str(spec["seed"]),
        "model_digest": decision["chosen"]["model_digest"],
        "backbone": spec["backbone"]["name"],
        "backbone_digest": spec["backbone"]["digest"],
        "params_digest": sha256_bytes(to_json(params).encode()),
        **digests,
    }
    if LOCK.is_file():
        facts["requirements_digest"] = sha256_file(LOCK)
    commit = git_commit()
    if commit:
        facts["git_commit"] = commit
    return facts


def git_commit(folder: Path = ROOT) -> str | None:
    """The commit that is checked out, with "-dirty" when files differ from it; None outside of git."""
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None


def requirements(spec: dict[str, Any]) -> list[str]:
    """What a served model needs, pinned to the versions it was verified with.

    Args:
        spec: the tuned model's model.yaml; a method's own code needs what it imports, and open_clip's tokenizers.
    """
    more = set() if needs_only_head(spec) else {"transformers", *distributions(code_of(spec))}
    names = [*SERVED_WITH, *sorted({name.lower() for name in more} - set(SERVED_WITH))]
    # "+cpu" and the like name one index's build of a version.
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in names]


def interval(value: dict[str, Any] | None) -> str:
    """A metric with its interval, as "0.912 [0.880, 0.941]"."""
    if not value or value.get("value") is None:
        return "not defined"
    if value.get("low") is None or value.get("high") is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def model_card(card: Card, spec: dict[str, Any], metrics: dict[str, Any], facts: dict[str, str]) -> str:
    """The model card, in Markdown."""
    classes = "\n".join(f"- `{c.id}`: {c.name} ({c.phrase})" for c in card.classes)
    rows = "\n".join(
        f"| {name} | {interval(metrics['val'].get(name))} | {interval(metrics['test'].get(name))} |"
        for name in METRICS
        if name in metrics["test"]
    )
    origin = "\n".join(f"| {key.replace('_', ' ')} | `{value}` |" for key, value in sorted(facts.items()))
    return f"""# {card.title}: {spec["candidate"]}

Classifies one {card.modality} image ({card.organ}) into:

{classes}

{_built_on(spec)} Method `{spec["method"]}`, seed {spec["seed"]}, with
{spec.get("trainable_parameters", 0)} trainable parameters, on the training split of `{spec["dataset"]}`.

## Metrics

With intervals from a bootstrap over patients.

| metric | validation | test |
|---|---|---|
{rows}

## Use and limits

For research on images like those of the dataset, taken and stored the same way. It always names one of the classes
above, for images of anything else too; its probabilities are no diagnosis. It is no medical device.

## Data

Source: {card.source}. Licence: {card.licence}.

## Origin

| what | value |
|---|---|
{origin}
"""


def _built_on(spec: dict[str, Any]) -> str:
    backbone = f"`{spec['backbone']['name']}`"
    if needs_only_head(spec):
        return f"The image tower of {backbone} is frozen."
    return f"Built on {backbone}; the method's own code predicts, and is part of the model."
