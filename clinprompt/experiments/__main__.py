"""`python -m clinprompt.experiments`: the tables of experiments' results, and what the papers' tables need."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinprompt import cli
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.experiments.protocols import PROTOCOLS, halves
from clinprompt.experiments.section import Protocols, check_protocols
from clinprompt.experiments.tables.papers import availability, edit_params, edits, paper, papers
from clinprompt.experiments.tables.presets import describe, presets
from clinprompt.files import write_text
from clinprompt.schema import read_yaml

if TYPE_CHECKING:
    from clinprompt.experiments.journal import Row

PARAMS = Path("params.yaml")
TABLES = (*PROTOCOLS, "transfer")
TESTED = ("base", "novel")
_INTRO = "<!-- Made by python -m clinprompt.experiments {command} -->\n\n"


app = cli.application(__doc__)


@app.command(help="Markdown (and figures) of the results, published numbers beside them")
def table(
    name: Annotated[
        str | None, typer.Argument(help="a ready-made table; by default the protocols that have results")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(callback=cli.one_of(TABLES), help=f"{', '.join(TABLES)}; may be given several times"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            callback=cli.one_of(SELECTABLE),
            help=f"{', '.join(SELECTABLE)}; by default balanced_accuracy, of a ready-made table accuracy, as published",
        ),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="where the results are (default: runs); given several times, the first that has a result wins",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="write there, with figures beside it", callback=cli.file_to_write),
    ] = None,
) -> None:
    """Print the Markdown of a ready-made table, or of the protocols that have results; with `out`, its path."""
    for folder in runs or []:
        if not folder.is_dir():
            raise InputMissing(f"{folder} (--runs) is not a folder.")
    metric = metric or ("accuracy" if name else "balanced_accuracy")
    text = _table(name, protocol or [], metric, runs or [Path("runs")], out)
    if out:
        write_text(out, _INTRO.format(command=" ".join(["table", *([name] if name else [])])) + text)
        text = f"{out}\n"
    sys.stdout.write(text)


def _table(name: str | None, protocols: list[str], metric: str, folders: list[Path], out: Path | None) -> str:
    from clinprompt.experiments.results import read_transfers
    from clinprompt.experiments.tables.figure import write_figure
    from clinprompt.experiments.tables.markdown import render
    from clinprompt.experiments.tables.published import published
    from clinprompt.experiments.tables.results_table import ResultsTable
    from clinprompt.experiments.tables.transfers import render_transfers

    knobs, sources, parts = _protocols(), published(), []
    chosen = paper(name) if name else None
    names = [chosen.protocol] if chosen else protocols or [n for n in PROTOCOLS if _any_result(folders, n)]
    for shown in (shown for shown in names if shown != "transfer"):
        datasets, methods = (chosen.datasets, chosen.methods) if chosen else (knobs.datasets, knobs.methods)
        board = ResultsTable.read(folders, shown, datasets, methods, only=chosen is not None)
        parts.append(render(board, metric, sources))
        if out and board.shown():
            picture = out.with_name(f"{out.stem}-{shown}.png")
            write_figure(picture, board, metric, sources)
            parts.append(f"![{shown}]({picture.name})\n")
    if "transfer" in names or (not chosen and not protocols):
        parts.append(render_transfers(read_transfers(folders), metric))
    return "\n".join(part for part in parts if part) or "There are no results yet.\n"


@app.command(help="whether one method is better than others on the same cells and images: a paired test")
def compare(
    first: Annotated[str, typer.Argument(help="a method, or a variant")],
    others: Annotated[list[str], typer.Argument(help="what it is compared with")],
    dataset: Annotated[str | None, typer.Option(help="by default the first of protocols.datasets")] = None,
    protocol: Annotated[str, typer.Option(callback=cli.one_of(TABLES), help=", ".join(TABLES))] = "cross_validation",
    test: Annotated[
        str | None, typer.Option(callback=cli.one_of(TESTED), help="of base_to_novel: base or novel (default: novel)")
    ] = None,
    group: Annotated[str | None, typer.Option(help="only the cells with this number of shots, or this share")] = None,
    source: Annotated[str | None, typer.Option(help="of transfer: where the candidates were tuned")] = None,
    runs: Annotated[Path, typer.Option(metavar="FOLDER", help="where the results are")] = Path("runs"),
) -> None:
    """Print a table of differences in balanced accuracy, with intervals and p."""
    from clinprompt.data.manifest import read_manifest
    from clinprompt.experiments.paired import compare as paired
    from clinprompt.experiments.paired import render as rendered
    from clinprompt.files import sha256_file

    name, part = dataset or _protocols().datasets[0], _part(protocol, test)
    found = _results(runs, protocol, name, source)
    manifest = runs / name / "validate" / "manifest.parquet"
    for result in found:
        if result["manifest"] != sha256_file(manifest):
            raise InputCorrupt(
                f"The results of {result.get('method', protocol)} are of other images than {manifest}; run them again."
            )
    cells = _cells_by_method(found, protocol, group)
    classes = found[0]["classes"] if found else []
    if classes and part != "test":
        classes = list(dict(zip(TESTED, halves(tuple(classes)), strict=True))[part])
    rows = read_manifest(manifest)
    tested = rows[(rows["split"] == "test") & rows["label"].isin(classes)]
    about = {"dataset": name, "protocol": protocol} | ({"group": group} if group else {})
    about |= {"test": f"{part} classes"} if part != "test" else {}
    about |= {"source": f"tuned on {source}"} if source else {}
    sys.stdout.write(rendered(paired(cells, tested, classes, first, others, part), about))


def _results(runs: Path, protocol: str, dataset: str, source: str | None) -> list[dict[str, Any]]:
    """The results of a protocol on a dataset; of `transfer`, that of the candidates that were tuned on the source."""
    from clinprompt.experiments.results import read_results, read_transfers

    if protocol != "transfer":
        if source is not None:
            raise BadParams(f"--source: {protocol} trains and tests on one dataset; leave it out.")
        return [result for result in read_results([runs], protocol) if result["dataset"] == dataset]
    found = {result["dataset"]: result for result in read_transfers([runs]) if result["target"] == dataset}
    if source not in found:
        raise BadParams(
            f"--source: say one of {', '.join(found) or 'none'}, whose candidates were tested on {dataset}."
        )
    return [found[source]]


def _cells_by_method(found: Sequence[dict[str, Any]], protocol: str, group: str | None) -> "dict[str, list[Row]]":
    from clinprompt.experiments.results import grouped

    if protocol == "transfer":
        return grouped(found[0]["cells"])
    return {
        result["method"]: result["cells"] if group is None else grouped(result["cells"]).get(group, [])
        for result in found
    }


def _part(protocol: str, asked: str | None) -> str:
    if protocol == "base_to_novel":
        return asked or "novel"
    if asked is not None:
        raise BadParams(f"--test: {protocol} has one test; leave it out.")
    return "test"


@app.command("presets", help="the papers' published settings, each with the file it comes from")
def show_preset(name: Annotated[str | None, typer.Argument(help="one of them; by default their list")] = None) -> None:
    """Print the presets' names, or one of them as Markdown."""
    if name is not None:
        sys.stdout.write(describe(name))
        return
    lines = [f"{key}: {one.title} ({one.paper}); {', '.join(one.protocols)}" for key, one in presets().items()]
    lines += ["", "Train with one: protocols.<protocol>.preset in params.yaml, or"]
    lines += ["  dvc exp run experiments/dvc.yaml -S 'protocols.few_shot.preset=biomed_dpt'"]
    sys.stdout.write("\n".join(lines) + "\n")


@app.command("papers", help="the ready-made tables and what each needs")
def list_papers(
    how: Annotated[bool, typer.Option("--how", help="tell how to get the datasets that are not here")] = False,
) -> None:
    """Print the ready-made tables, with what of their data is here."""
    lines = []
    for name, one in papers().items():
        found = availability(one.datasets, Path(), _root())
        here = [dataset for dataset, way in found.items() if way is None]
        lines += [f"{name}", f"  {one.title} ({one.paper})", f"  methods: {', '.join(one.methods)}"]
        lines += [f"  data: {len(here)} of {len(found)} datasets are here" + (f": {', '.join(here)}" if here else "")]
        lines += [f"    {dataset}: {way}" for dataset, way in found.items() if way is not None and how]
    lines += ["", "How to get the data: add --how. Then: python -m clinprompt.experiments use NAME"]
    sys.stdout.write("\n".join(lines) + "\n")


@app.command(help="write a ready-made table's params into params.yaml")
def use(
    name: Annotated[str, typer.Argument()],
    available: Annotated[bool, typer.Option("--available", help="only the datasets whose files are here")] = False,
) -> None:
    """Write a ready-made table's params into params.yaml, and say what comes next."""
    one = paper(name)
    found = availability(one.datasets, Path(), _root())
    absent = {dataset: how for dataset, how in found.items() if how is not None}
    datasets = [d for d in one.datasets if d not in absent] if available else one.datasets
    if not datasets:
        raise BadParams(f"None of the datasets of {name} is here; `papers --how` tells how to get them.")
    changes = edits(one, datasets)
    edit_params(PARAMS, changes)
    lines = [f"{PARAMS} has changed:", *(f"  {key}: {value}" for key, value in changes.items())]
    if absent:
        left = "left out" if available else "not here yet (--available leaves them out)"
        lines += [f"Datasets {left}:", *(f"  {dataset}: {how}" for dataset, how in absent.items())]
    lines += ["Next:", "  dvc repro experiments/dvc.yaml", f"  python -m clinprompt.experiments table {name}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _any_result(folders: Sequence[Path], protocol: str) -> bool:
    return any(path for folder in folders for path in folder.glob(f"*/experiments/{protocol}/*.json"))


def _protocols() -> Protocols:
    return check_protocols(read_yaml(PARAMS).get("protocols"))


def _root() -> str | None:
    root: str | None = read_yaml(PARAMS)["data"]["root"]
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    return cli.main(app, argv, "python -m clinprompt.experiments")


if __name__ == "__main__":
    sys.exit(main())
