"""`python -m registry COMMAND`: look at the registry, try a model out, roll a champion back, share results."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinprompt import cli
from clinprompt.contract.variables import RESULT_FILE
from clinprompt.errors import BadParams, ClinpromptError, InputCorrupt, InputMissing, Interrupted
from clinprompt.files import to_json, write_text
from clinprompt.os_errors import explained
from clinprompt.output import tolerant
from clinprompt.params import load_params
from clinprompt.process import short_lived
from registry import champion, commands, listing, rollback
from registry.revert import lift
from registry.versions import CHAMPION, check_name

if TYPE_CHECKING:
    from registry.results import Moved

PARAMS = Path("params.yaml")
RUNS = Path("runs")
CHANGES = {"gc", "promote", "push-results", "rollback", "sign", "unquarantine"}  # commands that may change the registry


app = cli.application("Look at the model registry.")
Answer = tuple[Any, str]  # what a command found or did: for programs, and for people
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]
_Model = Annotated[str, typer.Argument(help="the registered model's name")]
_Either = Annotated[str, typer.Argument(help="the dataset's or the registered model's name")]
_Reason = Annotated[str, typer.Option(help="why; it is kept with the version")]
_Runs = Annotated[Path, typer.Option(help="DVC's results")]
_ParamsFile = Annotated[Path, typer.Option(help="the params")]


def main(argv: list[str]) -> int:
    """Run a command; the exit code is 0 or that of the error.

    With --json an error is a line of JSON on stdout as well, of whichever command: status, exit_code and message.
    """
    # Wrong usage has its line of JSON too, so these are looked up before anything is parsed.
    as_json, changes = "--json" in argv, bool(CHANGES & set(argv[:1]))
    with tolerant():
        try:
            _answer(cli.invoke(app, argv, "python -m registry"), as_json, changes)
            return 0
        except KeyboardInterrupt:
            error: ClinpromptError = Interrupted("interrupted; run the same command again.")
        except (ClinpromptError, OSError) as found:
            known = found if isinstance(found, ClinpromptError) else explained(found)
            if known is None:
                raise
            error = known
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
        told = {"status": code.name.lower(), "exit_code": int(code), "message": str(error)}
        try:
            _write_line(told, as_json, changes)
        except (ClinpromptError, OSError):  # the first error counts
            _write_line(told, as_json, changes=False)
        return int(code)


def _answer(answer: Answer | None, as_json: bool, changes: bool) -> None:
    """Tell what a command found or did; the help was printed before."""
    if answer is None:
        return
    value, text = answer
    if changes:
        _write_line({"status": "ok", **value}, as_json, changes)
    elif as_json:
        sys.stdout.write(to_json(value))
    if not as_json:
        sys.stdout.write(text)
    sys.stdout.flush()


def _write_line(result: dict[str, Any], as_json: bool, changes: bool) -> None:
    """What came of a command in one line; where it changes the registry, as a component gives it."""
    line = json.dumps(result) + "\n"
    if changes and (path := os.environ.get(RESULT_FILE)):
        write_text(Path(path), line)
    if as_json:
        sys.stdout.write(line)


@app.command("list", help="all models and versions, with aliases and metrics")
def _list(json: _Json = False) -> Answer:
    models = listing.models()
    return {"models": models}, listing.table(models) if models else "Nothing is registered yet.\n"


@app.command("show", help="one model: lineage and metrics of its versions")
def _show(name: _Model, json: _Json = False) -> Answer:
    model = listing.model(check_name(name))
    return model, listing.details(model)


@app.command("load", help="check a model's digests, load it and classify an image")
def _load(
    name: _Model,
    alias: Annotated[str, typer.Option(help="which version")] = CHAMPION,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="an image to classify")] = None,
    json: _Json = False,
) -> Answer:
    if image and not image.is_file():
        raise InputMissing(f"{image} is not a file.")
    loaded = champion(name, alias)
    if loaded is None:
        raise InputMissing(f"No version of {name!r} carries the alias {alias!r}.")
    facts: dict[str, Any] = {
        "name": loaded.name,
        "version": loaded.version,
        "alias": alias,
        "model_digest": loaded.model_digest,
        "payload_digest": loaded.payload_digest,
        "classes": loaded.classes,
        "prediction": None,
    }
    lines = [f"{loaded.name} version {loaded.version} ({alias}): every digest is right, and it loads."]
    if image is None:
        _ = loaded.model
    else:
        data = _read(image)
        try:
            answer = loaded.answers([data]).iloc[0]
        except ValueError as error:
            raise BadParams(f"{image}: {_why_unread(data) or error}") from None
        facts["prediction"] = {label: float(answer[f"p_{label}"]) for label in loaded.classes}
        width = max(map(len, loaded.classes))
        ranked = sorted(facts["prediction"].items(), key=lambda pair: -pair[1])
        lines += [f"  {name.ljust(width)}  {value:.4f}" for name, value in ranked]
        estimates = {str(key): float(answer[key]) for key in answer.index if str(key).endswith("_estimate")}
        if "prediction_set" in answer:
            facts["prediction_set"] = list(answer["prediction_set"])
            lines.append(f"  prediction set: {', '.join(answer['prediction_set']) or 'empty'}")
        if "abstain" in answer:
            facts["abstain"] = bool(answer["abstain"])
            lines += ["  too unsure to answer"] if answer["abstain"] else []
        if estimates:
            facts["estimates"] = estimates
            lines += [f"  {key.replace('_', ' ')}: {value:.1f}" for key, value in estimates.items()]
    return facts, "\n".join(lines) + "\n"


def _read(image: Path) -> bytes:
    """The bytes of an image's file.

    Raises:
        BadParams: they are more than is read.
        InputCorrupt: it can't be read.
    """
    from clinprompt.data.codecs import read_file

    try:
        return read_file(image)
    except ValueError as error:
        raise BadParams(f"{image}: {error}.") from None
    except OSError as error:
        raise InputCorrupt(f"{image} can't be read: {error.strerror}.") from None


def _why_unread(data: bytes) -> str | None:
    """Why a file is no image, in this repository's words; a served model tells nothing of what is in a file."""
    from clinprompt.data.codecs import decode

    try:
        decode(data)
    except ValueError as error:
        return str(error)
    return None


@app.command("rollback", help="make the version before the champion the champion again")
def _rollback(
    name: _Either,
    reason: _Reason,
    version: Annotated[
        int | None,
        typer.Option(
            parser=commands.version_number, metavar="NUMBER", help="the champion that is meant; another is left alone"
        ),
    ] = None,
    to: Annotated[
        int | None,
        typer.Option(
            parser=commands.version_number, metavar="VERSION", help="the version to go back to (default: previous)"
        ),
    ] = None,
    params: _ParamsFile = PARAMS,
    json: _Json = False,
) -> Answer:
    journal, name = commands.journal_of(params), _model_name(name, params)
    done = rollback(name, reason, version=version, to=to, journal=journal)
    back, now, why = (done[key] for key in ("rolled_back", "version", "reason"))
    if done["action"] == "unchanged":
        return done, f"{name}: version {back} was rolled back before ({why}); version {now} stays the champion.\n"
    return done, f"{name}: version {back} was rolled back and is quarantined ({why}); version {now} is the champion.\n"


@app.command("unquarantine", help="let a version that was rolled back be promoted again")
def _unquarantine(
    name: _Either,
    version: Annotated[
        int, typer.Option(parser=commands.version_number, metavar="NUMBER", help="the version in quarantine")
    ],
    reason: _Reason,
    params: _ParamsFile = PARAMS,
    json: _Json = False,
) -> Answer:
    journal, name = commands.journal_of(params), _model_name(name, params)
    done = lift(name, version, reason, journal=journal)
    if done["action"] == "unchanged":
        return done, f"{name}: version {version} is not quarantined; nothing changed.\n"
    return done, f"{name}: version {version} may be promoted again.\n"


@app.command("push-results", help="log the experiments' results to MLflow")
def _push_results(runs: _Runs = RUNS, params: _ParamsFile = PARAMS, json: _Json = False) -> Answer:
    from registry import results  # pandas and scipy, which no other command needs

    experiment = load_params(params).registry.results
    done = results.push(runs, experiment)
    return _by_change(done, "pushed"), _summary(done, "pushed to", experiment)


@app.command("pull-results", help="fetch the newest results in MLflow, for a table")
def _pull_results(
    folder: Annotated[
        Path, typer.Argument(help="a folder for them, which `table --runs` reads", callback=cli.folder_to_write)
    ],
    runs: _Runs = RUNS,
    params: _ParamsFile = PARAMS,
    json: _Json = False,
) -> Answer:
    if folder.resolve() == runs.resolve():
        raise BadParams(f"{folder} holds the results that DVC makes; name another folder.")
    from registry import results

    experiment = load_params(params).registry.results
    done = results.pull(folder, experiment)
    return _by_change(done, "pulled"), _summary(done, "pulled from", experiment)


def _by_change(transfers: "list[Moved]", verb: str) -> dict[str, list[str]]:
    return {
        verb: [transfer.subpath for transfer in transfers if not transfer.unchanged],
        "unchanged": [transfer.subpath for transfer in transfers if transfer.unchanged],
    }


def _summary(transfers: "list[Moved]", verb_phrase: str, experiment: str) -> str:
    new = sum(not transfer.unchanged for transfer in transfers)
    return f"{new} of {len(transfers)} results {verb_phrase} {experiment!r}; the others were there.\n"


def _model_name(name: str, params: Path) -> str:
    """The registered model that a name means: where it is a dataset's, the one that its champions are versions of."""
    check_name(name)
    settings = commands.settings_of(params)
    if settings is None:
        return name
    is_dataset = name in settings.datasets or (params.parent / "datasets" / f"{name}.yaml").is_file()
    return settings.registry.production_model.format(dataset=name) if is_dataset else name


commands.add_to(app)


if __name__ == "__main__":
    short_lived()
    sys.exit(main(sys.argv[1:]))
