"""A model card as Markdown."""

from collections.abc import Iterable, Mapping, Sequence

from clinprompt.evaluation.calibration_record import Calibration, Covered
from clinprompt.evaluation.estimate import Estimate, estimate_text
from clinprompt.evaluation.metric_names import OVERALL, PER_CLASS, SCORE
from registry.model_card import CardEvaluation, ModelCard

_OF_SLICES = ("balanced_accuracy", "accuracy", "auroc")


def to_markdown(card: ModelCard) -> str:
    """The whole card; equal cards give equal text."""
    data, training = card.data, card.training
    classes = [f"`{one.id}`: {one.name} ({one.phrase})" for one in data.classes]
    sections = {
        "Intended use": [card.use.intended, "Not for:", _bullets(card.use.not_for)],
        "Limits": [_bullets(card.limits)],
        "Data": [
            f"{data.title}: {data.patients.images} images of {data.patients.shown or 'unknown'} patients.",
            f"Source: {data.source}. {data.how_to_get}",
            f"Licence: {card.licences.data}. Of the backbone: {card.licences.backbone or 'not known'}.",
        ],
        "Training": [
            card.architecture,
            f"Method `{training.method}`, seed {training.seed}, with {training.trainable_parameters} trainable "
            f"parameters, on the training split of `{data.name}`.",
            f"On {'a GPU' if training.device == 'cuda' else 'the CPU'}, in {training.precision}.",
            _table(("knob", "value"), ((key, f"`{value}`") for key, value in sorted(training.config.items()))),
        ],
        "Inputs and outputs": [
            _table(("column", "meaning"), [*card.interface.input.items(), *card.interface.output.items()])
        ],
        "Metrics": _metrics(card.evaluation, data.warning),
        "How sure it is": _calibration(card.calibration) if card.calibration is not None else [],
        "Decision": [
            f"{card.decision.verdict.capitalize()}:",
            _bullets(card.decision.reasons),
            "Asked for:",
            _bullets(card.decision.required),
        ],
        "Origin": [
            _table(("what", "value"), ((k.replace("_", " "), f"`{v}`") for k, v in sorted(card.origin.items())))
        ],
    }
    parts = [f"# {card.name}", card.task, _bullets(classes)]
    for title, paragraphs in sections.items():
        if paragraphs:
            parts += [f"## {title}", *paragraphs]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metrics(found: CardEvaluation, warning: str | None) -> list[str]:
    parts = [f"With intervals over {found.intervals_over}.", f"**{warning}**" if warning else ""]
    rows = ((n, estimate_text(found.val.get(n)), estimate_text(found.test.get(n))) for n in OVERALL if n in found.test)
    parts.append(_table(("metric", "validation", "test"), rows))
    classes = [(name, str(of.n), *_cells(of.estimates, PER_CLASS)) for name, of in found.per_class.items()]
    parts.append(_table(("class, on the test split", "images", *PER_CLASS), classes))
    slices = [(name, str(of.n), *_cells(of.estimates, _OF_SLICES)) for name, of in found.slices.items()]
    parts.append(_table(("slice of the test split", "images", *_OF_SLICES), slices) if slices else "")
    if found.score is not None:
        of_score = [("all", *_cells(found.score.estimates, SCORE))]
        of_score += [(name, *_cells(part.estimates, SCORE)) for name, part in found.score.slices.items()]
        parts.append(_table((f"{found.score.name}, on the test split", *SCORE), of_score))
    return parts


def _calibration(fitted: Calibration) -> list[str]:
    """What was fitted, on what, and how it held."""
    on, sets, abstention = fitted.fitted_on, fitted.prediction_sets, fitted.abstention
    parts = [f"Fitted on the validation split: {on.says}."]
    why = f" ({fitted.temperature_reason})" if fitted.temperature_reason else ""
    parts.append(f"Temperature: {fitted.temperature:g}{why}.")
    if sets.thresholds is None:
        parts.append(f"No prediction sets: {sets.reason}.")
    else:
        what = "in each class" if sets.per_class else f"over all classes ({sets.reason})"
        parts.append(f"Prediction sets that are to hold the true class of {sets.coverage:.0%} of the images {what}:")
        parts.append(_table(("class", "at least"), ((k, f"{v:g}") for k, v in sets.thresholds.items())))
    if sets.test is not None:
        named = {"all": sets.test.overall, **sets.test.per_class, **sets.test.slices}
        rows = [
            (name, str(of.n), estimate_text(of.coverage), _band(of), f"{of.size:.2f}") for name, of in named.items()
        ]
        parts.append(
            _table(
                ("on the test split", "images", "coverage", f"expected of exchangeable {on.unit}", "mean size"), rows
            )
        )
        parts.append(f"One class: {sets.test.single:.0%} of the sets; none: {sets.test.empty:.0%}.")
    if abstention.threshold is None:
        parts.append(f"No threshold to abstain by: {abstention.reason}.")
    else:
        parts.append(
            f"It abstains where the highest probability is below {abstention.threshold:g}, so that at most "
            f"{abstention.error:.0%} of the {on.unit} that it answers get a wrong answer (confidence "
            f"{abstention.confidence:.0%})."
        )
    if abstention.test is not None:
        parts.append(
            f"On the test split it answers {estimate_text(abstention.test.answered)} of the images, "
            f"{estimate_text(abstention.test.error)} of these wrongly."
        )
    return parts


def _band(of: Covered) -> str:
    return f"{of.band[0]:.3f} to {of.band[1]:.3f}" if of.band is not None else ""


def _cells(estimates: Mapping[str, Estimate], keys: Iterable[str]) -> list[str]:
    return [estimate_text(estimates.get(key)) for key in keys]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
