"""`python -m clinprompt.experiments`: the tables of experiments' results, and what the papers' tables need."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clinprompt.errors import BadParams, ClinpromptError, InputMissing
from clinprompt.experiments.protocols import PROTOCOLS, Protocols, check_protocols
from clinprompt.experiments.scores import METRICS
from clinprompt.experiments.tables.papers import availability, edit_params, edits, paper, papers
from clinprompt.files import write_text
from clinprompt.schema import read_yaml

PARAMS = Path("params.yaml")
_INTRO = "<!-- Made by python -m clinprompt.experiments {command} -->\n\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    options = _parser().parse_args(argv)
    try:
        sys.stdout.write(options.run(options))
    except ClinpromptError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


def table(options: argparse.Namespace) -> str:
    """The Markdown of a ready-made table, or of the protocols that have results; with --out, its path."""
    from clinprompt.experiments.results import read_transfers
    from clinprompt.experiments.tables.figure import write_figure
    from clinprompt.experiments.tables.markdown import render
    from clinprompt.experiments.tables.published import published
    from clinprompt.experiments.tables.results_table import ResultsTable
    from clinprompt.experiments.tables.transfers import render_transfers

    knobs, sources, folders, parts = _protocols(), published(), options.runs or [Path("runs")], []
    for folder in options.runs or []:
        if not folder.is_dir():
            raise InputMissing(f"{folder} (--runs) is not a folder.")
    chosen = paper(options.name) if options.name else None
    names = [chosen.protocol] if chosen else options.protocol or [n for n in PROTOCOLS if _any_result(folders, n)]
    for name in (name for name in names if name != "transfer"):
        datasets, methods = (chosen.datasets, chosen.methods) if chosen else (knobs.datasets, knobs.methods)
        board = ResultsTable.read(folders, name, datasets, methods, only=chosen is not None)
        parts.append(render(board, options.metric, sources))
        if options.out and board.shown():
            picture = options.out.with_name(f"{options.out.stem}-{name}.png")
            write_figure(picture, board, options.metric, sources)
            parts.append(f"![{name}]({picture.name})\n")
    if "transfer" in names or (not chosen and not options.protocol):
        parts.append(render_transfers(read_transfers(folders), options.metric))
    text = "\n".join(part for part in parts if part) or "There are no results yet.\n"
    if not options.out:
        return text
    command = " ".join(["table", *([options.name] if options.name else [])])
    write_text(options.out, _INTRO.format(command=command) + text)
    return f"{options.out}\n"


def list_papers(options: argparse.Namespace) -> str:
    """The ready-made tables, with what of their data is here."""
    lines = []
    for name, one in papers().items():
        found = availability(one.datasets, Path(), _root())
        here = [dataset for dataset, how in found.items() if how is None]
        lines += [f"{name}", f"  {one.title} ({one.paper})", f"  methods: {', '.join(one.methods)}"]
        lines += [f"  data: {len(here)} of {len(found)} datasets are here" + (f": {', '.join(here)}" if here else "")]
        lines += [f"    {dataset}: {how}" for dataset, how in found.items() if how is not None and options.how]
    lines += ["", "How to get the data: add --how. Then: python -m clinprompt.experiments use NAME"]
    return "\n".join(lines) + "\n"


def use(options: argparse.Namespace) -> str:
    """Write a ready-made table's params into params.yaml, and say what comes next."""
    one = paper(options.name)
    found = availability(one.datasets, Path(), _root())
    absent = {dataset: how for dataset, how in found.items() if how is not None}
    datasets = [d for d in one.datasets if d not in absent] if options.available else one.datasets
    if not datasets:
        raise BadParams(f"None of the datasets of {options.name} is here; `papers --how` tells how to get them.")
    changes = edits(one, datasets)
    edit_params(PARAMS, changes)
    lines = [f"{PARAMS} has changed:", *(f"  {key}: {value}" for key, value in changes.items())]
    if absent:
        left = "left out" if options.available else "not here yet (--available leaves them out)"
        lines += [f"Datasets {left}:", *(f"  {dataset}: {how}" for dataset, how in absent.items())]
    lines += ["Next:", "  dvc repro experiments/dvc.yaml", f"  python -m clinprompt.experiments table {options.name}"]
    return "\n".join(lines) + "\n"


def _any_result(folders: Sequence[Path], protocol: str) -> bool:
    return any(path for folder in folders for path in folder.glob(f"*/experiments/{protocol}/*.json"))


def _protocols() -> Protocols:
    return check_protocols(read_yaml(PARAMS).get("protocols"))


def _root() -> str | None:
    root: str | None = read_yaml(PARAMS)["data"]["root"]
    return root


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clinprompt.experiments", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("table", help="Markdown (and figures) of the results, published numbers beside them")
    one.add_argument("name", nargs="?", help="a ready-made table; by default the protocols that have results")
    one.add_argument("--protocol", action="append", choices=[*PROTOCOLS, "transfer"], help="may be given several times")
    one.add_argument("--metric", choices=METRICS, default="accuracy")
    one.add_argument(
        "--runs",
        action="append",
        type=Path,
        metavar="FOLDER",
        help="where the results are (default: runs); given several times, the first that has a result wins",
    )
    one.add_argument("--out", type=Path, metavar="FILE.md", help="write there, with figures beside it")
    one.set_defaults(run=table)
    two = commands.add_parser("papers", help="the ready-made tables and what each needs")
    two.add_argument("--how", action="store_true", help="tell how to get the datasets that are not here")
    two.set_defaults(run=list_papers)
    three = commands.add_parser("use", help="write a ready-made table's params into params.yaml")
    three.add_argument("name")
    three.add_argument("--available", action="store_true", help="only the datasets whose files are here")
    three.set_defaults(run=use)
    return parser


if __name__ == "__main__":
    sys.exit(main())
