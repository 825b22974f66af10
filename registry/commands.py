"""More commands of `python -m registry`: of single versions, and what changes them but for a rollback."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinprompt.errors import BadParams, InputMissing
from registry import collect, export, held_out, provenance, reproduced, reproduction, signing, stage
from registry.versions import CHAMPION, as_number, check_name

if TYPE_CHECKING:
    from clinprompt.params import Params

Answer = tuple[Any, str]  # what a command found or did: for programs, and for people
PARAMS = Path("params.yaml")

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Model = Annotated[str, typer.Argument(help="the registered model's name")]


def version_number(text: str) -> int:
    """A parser of options that name a version."""
    try:
        return as_number(text)
    except BadParams as error:
        raise typer.BadParameter(str(error)) from None


Number = Annotated[
    int | None,
    typer.Option("--version", parser=version_number, metavar="NUMBER", help="a version's number, instead of an alias"),
]
Alias = Annotated[str, typer.Option(help="which version")]
ParamsFile = Annotated[Path, typer.Option(help="the params")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command("verify", help="check every digest of a version, and that lineage, decision and journal agree")(verify)
    app.command("lineage", help="where a version comes from")(lineage)
    app.command("diff", help="what differs between two versions: numbers or aliases")(diff)
    app.command("export", help="copy a version, verified, to a new folder")(take_out)
    app.command("serve-check", help="load a version in a clean process and let it predict")(serve_check)
    app.command("sign", help="check every digest of a version, and sign it")(sign)
    app.command("gc", help="versions that no alias, no entry of the journal and no lineage names")(gc)
    app.command("decisions", help="how often each test split has decided on a model's candidates")(decisions)
    app.command("promote", help="promote what the gate has decided for a dataset: the stage of dvc.yaml")(promote)
    app.command("reproduce", help="make the workspace of a version's training again in a new folder")(reproduce)


def journal_of(params: Path) -> str | None:
    """Where the promotions to a server are written down, as params.yaml says; None without one."""
    settings = settings_of(params)
    return settings.registry.journal if settings else None


def settings_of(params: Path) -> "Params | None":
    """What params.yaml says; None where a folder has none.

    Raises:
        BadParams: a value in it is not one that exists or makes sense.
        InputMissing: another file was named, and is not there.
    """
    from clinprompt.params import load_params

    if params.is_file():
        return load_params(params)
    if params != PARAMS:
        raise InputMissing(f"{params} is not a file.")
    return None


def verify(
    name: Model, version: Number = None, alias: Alias = CHAMPION, params: ParamsFile = PARAMS, json: Json = False
) -> Answer:
    """Check a version."""
    done = provenance.verify(check_name(name), _which(version, alias), journal=journal_of(params))
    said = f"{name} version {done['version']}: {done['files']} files are what was registered, and so are "
    signed = f"It is signed by {done['signer']}" if done["signed"] else "It is not signed"
    if done["signed"] and "signature" not in done["checks"]:
        signed += ", and no key was given to check that by"
    more = "".join(f" NOT CHECKED: the {what}: {why}." for what, why in done["not_checked"].items())
    return done, f"{said}{', '.join(done['checks'][1:])}. {signed}.{more}\n"


def lineage(
    name: Model, version: Number = None, alias: Alias = CHAMPION, params: ParamsFile = PARAMS, json: Json = False
) -> Answer:
    """Where a version comes from."""
    found = provenance.lineage(check_name(name), _which(version, alias), journal=journal_of(params))
    return found, provenance.text(found)


def diff(
    name: Model,
    first: Annotated[str, typer.Argument(help="a version's number, or an alias")],
    second: Annotated[str, typer.Argument(help="another one")],
    json: Json = False,
) -> Answer:
    """What differs between two versions."""
    found = provenance.diff(check_name(name), first, second)
    return found, provenance.text(found)


def take_out(
    name: Model,
    folder: Annotated[Path, typer.Argument(help="a new folder")],
    version: Number = None,
    alias: Alias = CHAMPION,
    json: Json = False,
) -> Answer:
    """Copy a version to a folder."""
    done = export.export(check_name(name), folder, _which(version, alias))
    said = f"{name} version {done['version']} is in {folder}; every digest is right."
    more = f" Its signature ({done['signer']}) is in {done['signature']}." if done["signature"] else ""
    return done, f"{said}{more}\n"


def serve_check(name: Model, version: Number = None, alias: Alias = CHAMPION, json: Json = False) -> Answer:
    """Let a version predict in a clean process."""
    done = export.serve_check(check_name(name), _which(version, alias))
    return done, f"{name} version {done['version']} loads in a clean process and predicts probabilities.\n"


def sign(
    name: Model, version: Number = None, alias: Alias = CHAMPION, params: ParamsFile = PARAMS, json: Json = False
) -> Answer:
    """Sign a version."""
    done = signing.sign(check_name(name), _which(version, alias), journal=journal_of(params))
    return done, f"{name} version {done['version']} is signed by {done['signer']}; every digest is right.\n"


def gc(
    name: Model,
    delete: Annotated[bool, typer.Option("--delete/--dry-run", help="delete them, or only tell")] = False,
    params: ParamsFile = PARAMS,
    json: Json = False,
) -> Answer:
    """Collect what nothing names."""
    done = collect.gc(check_name(name), delete=delete, journal=journal_of(params))
    if not done["versions"]:
        return done, "Every version is named by an alias, the journal or a lineage.\n"
    verb = "deleted" if delete else "would be deleted (--delete)"
    return done, "".join(
        f"{model}: {verb}: versions {', '.join(map(str, numbers))}\n" for model, numbers in done["versions"].items()
    )


def decisions(name: Model, params: ParamsFile = PARAMS, json: Json = False) -> Answer:
    """Tell the decisions on test splits."""
    found = held_out.decisions(name, journal=journal_of(params))
    if not found:
        return {"test_sets": []}, f"No decision on a candidate for {name} is counted.\n"
    lines = []
    for split in found:
        lines.append(f"test split {split['test_set'][:12]}: decided {len(split['decisions'])} times\n")
        for one in split["decisions"]:
            facts = [f"{one['number']:>4}", one["at"], one["verdict"] or "unknown", f"alpha {one['alpha']:.3g}"]
            lines.append("  ".join([*facts, one["registered"], one["candidate"], one["by"]]) + "\n")
    return {"test_sets": found}, "".join(lines)


def promote(
    dataset: Annotated[str, typer.Argument(help="the dataset's name")],
    reproduce: Annotated[
        bool,
        typer.Option("--reproduce", help="train the choice again first; stop where another model comes out"),
    ] = False,
    params: ParamsFile = PARAMS,
    json: Json = False,
) -> Answer:
    """Promote a decision."""
    if reproduce:
        reproduced.retrain(check_name(dataset), params.parent)
    done = stage.promote(check_name(dataset), params.parent)
    now = f"version {done['version']} is the champion" if done["version"] else "there is no champion"
    if done["action"] == "rejected":
        now = "the registry stays as it is"
    return done, f"{done['model']}: {done['action']}; {now}.\n"


def reproduce(
    name: Model,
    folder: Annotated[Path, typer.Argument(help="a new folder")],
    version: Number = None,
    alias: Alias = CHAMPION,
    json: Json = False,
) -> Answer:
    """Make a training's workspace again."""
    done = reproduction.reproduce(check_name(name), folder, _which(version, alias))
    return done, provenance.text(done)


def _which(version: int | None, alias: str) -> int | str:
    """The version that is meant: by its number where one is given, 0 among them, of which there is none."""
    return alias if version is None else version
