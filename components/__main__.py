"""`python -m components`: what the last run gave, where to look, and what to do next."""

import sys
from collections.abc import Sequence
from pathlib import Path

from clinprompt import cli
from clinprompt.errors import InputMissing
from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.evaluation.estimate import estimate_text
from clinprompt.params import Params, load_params
from registry.receipt import Receipt
from registry.tracking import shown_uri

RECEIPT = Path("promote", "receipt.json")  # in a dataset's run, the last that the summary reads
NEXT = """
Look at the models     mlflow ui --backend-store-uri {uri}, then http://127.0.0.1:5000/#/models
Use the champion       import pathlib, registry
                       model = registry.load("{model}")
                       print(model.predict([{{"image": pathlib.Path("scan.png")}}]).T)
Run on your images     python -m clinprompt.data.new my-images /path/to/folder    # folders of classes, or a table
                       put my-images into `datasets:` of params.yaml, then: make run
"""
FIRST = "First, in this shell   {command}\n"


def summary(params: Params, runs: Path) -> str:
    """The runs of all datasets that have come to a decision, a few lines each, and the commands that come next."""
    ended = [name for name in params.datasets if name not in unfinished(params, runs)]
    parts = [_dataset(name, params, runs / name) for name in ended]
    dataset = next((name for name in ended if Receipt.read(runs / name / RECEIPT).version is not None), ended[0])
    model = params.registry.production_model.format(dataset=dataset)
    following = NEXT.format(uri=shown_uri(), model=model).strip("\n")
    command = cli.activation()
    return "\n\n".join([*parts, (FIRST.format(command=command) if command else "") + following])


def unfinished(params: Params, runs: Path) -> list[str]:
    """The datasets whose last run has not ended."""
    return [name for name in params.datasets if not (runs / name / RECEIPT).is_file()]


def _dataset(name: str, params: Params, folder: Path) -> str:
    decision = DecisionRecord.read(folder / "gate" / "decision.json")
    receipt = Receipt.read(folder / RECEIPT)
    lines = [f"{name}: {decision.verdict.upper()}", *(f"  {reason}" for reason in decision.reasons)]
    metric = params.gate.select_by
    for candidate in decision.candidates:
        mark = "*" if decision.is_chosen(candidate) else " "
        if candidate.not_trained is not None:
            lines.append(f"    {candidate.candidate:<14} seed {candidate.seed:<3} not trained")
            continue
        value = estimate_text((candidate.test or {}).get(metric), "not computed")
        lines.append(f"  {mark} {candidate.candidate:<14} seed {candidate.seed:<3} {metric} {value} on the test split")
    lines.append(f"  champion: {_champion(decision, receipt)}")
    report = folder / "report.html"
    lines.append(f"  report:   {report if report.is_file() else 'not written yet'}")
    return "\n".join(lines)


def _champion(decision: DecisionRecord, receipt: Receipt) -> str:
    """Who is the champion now, and why it is not the choice where it isn't."""
    stays = receipt.version or (int(decision.champion.version) if decision.champion else None)
    champion = "none yet" if stays is None else f"models:/{receipt.model}@champion, version {stays}"
    if receipt.quarantined is not None:
        held = receipt.quarantined
        return f"{champion}; the choice was rolled back as version {held.version} ({held.reason}) and is kept out"
    if receipt.action == "rejected" and stays is not None:
        return f"{champion}, which stays"
    return f"{champion}, as before" if receipt.action == "unchanged" else champion


app = cli.application()


@app.command(help=__doc__)
def show() -> None:
    """Print the summary.

    Raises:
        InputMissing: the run of a dataset has not ended; what the others gave is printed.
    """
    params, runs = load_params(Path("params.yaml")), Path("runs")
    missing = unfinished(params, runs)
    if missing != params.datasets:
        sys.stdout.write(summary(params, runs) + "\n")
    if missing:
        raise InputMissing(f"No decision yet on {', '.join(missing)}. Run `dvc repro`; its first error tells why.")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the summary; 66 when there is no finished run."""
    return cli.main(app, argv, "python -m components")


if __name__ == "__main__":
    sys.exit(main())
