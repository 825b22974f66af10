"""`python -m registry COMMAND`: look at the registry, try a model out, roll a champion back, share results."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from clinprompt.contract.variables import RESULT_FILE
from clinprompt.errors import BadParams, ClinpromptError, InputMissing
from clinprompt.files import to_json, write_text
from clinprompt.params import load_params
from registry import champion, listing, quarantine, results, rollback
from registry.versions import CHAMPION


def main(argv: list[str]) -> int:
    """Run a command; the exit code is 0 or that of the error."""
    options = argparse.Namespace(json="--json" in argv, changes=bool({"rollback", "unquarantine"} & set(argv[:1])))
    try:
        _parser().parse_args(argv, options)
        value, text = options.command(options)
    except ClinpromptError as error:
        sys.stderr.write(f"{error}\n")
        if options.changes:
            code = error.exit_code
            _write_line(options, {"status": code.name.lower(), "exit_code": int(code), "message": str(error)})
        return int(error.exit_code)
    if options.changes:
        _write_line(options, {"status": "ok", **value})
    elif options.json:
        sys.stdout.write(to_json(value))
    if not options.json:
        sys.stdout.write(text)
    return 0


def _write_line(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """The result of a command that changes the registry, in one line, as a component gives it."""
    line = json.dumps(result) + "\n"
    if options.json:
        sys.stdout.write(line)
    if path := os.environ.get(RESULT_FILE):
        write_text(Path(path), line)


def _list(options: argparse.Namespace) -> tuple[Any, str]:
    found = listing.models()
    return {"models": found}, listing.table(found) if found else "Nothing is registered yet.\n"


def _show(options: argparse.Namespace) -> tuple[Any, str]:
    found = listing.model(options.name)
    return found, listing.details(found)


def _load(options: argparse.Namespace) -> tuple[Any, str]:
    image = options.image.read_bytes() if options.image and options.image.is_file() else None
    if options.image and image is None:
        raise InputMissing(f"{options.image} is not a file.")
    found = champion(options.name, options.alias)
    if found is None:
        raise InputMissing(f"No version of {options.name!r} carries the alias {options.alias!r}.")
    facts: dict[str, Any] = {
        "name": found.name,
        "version": found.version,
        "alias": options.alias,
        "model_digest": found.model_digest,
        "payload_digest": found.payload_digest,
        "classes": found.classes,
        "prediction": None,
    }
    lines = [f"{found.name} version {found.version} ({options.alias}): every digest is right, and it loads."]
    if image is None:
        _ = found.model
    else:
        try:
            values = found.predict([image])[0].tolist()
        except ValueError as error:
            raise BadParams(f"{options.image}: {error}") from None
        facts["prediction"] = dict(zip(found.classes, values, strict=True))
        width = max(map(len, found.classes))
        ranked = sorted(facts["prediction"].items(), key=lambda pair: -pair[1])
        lines += [f"  {name.ljust(width)}  {value:.4f}" for name, value in ranked]
    return facts, "\n".join(lines) + "\n"


def _rollback(options: argparse.Namespace) -> tuple[Any, str]:
    name = _model_name(options.name, options.params)
    done = rollback(name, options.reason, version=options.version, to=options.to)
    back, now, why = (done[key] for key in ("rolled_back", "version", "reason"))
    if done["action"] == "unchanged":
        return done, f"{name}: version {back} was rolled back before ({why}); version {now} stays the champion.\n"
    return done, f"{name}: version {back} was rolled back and is quarantined ({why}); version {now} is the champion.\n"


def _unquarantine(options: argparse.Namespace) -> tuple[Any, str]:
    name = _model_name(options.name, options.params)
    done = quarantine.lift(name, options.version, options.reason)
    if done["action"] == "unchanged":
        return done, f"{name}: version {options.version} is not quarantined; nothing changed.\n"
    return done, f"{name}: version {options.version} may be promoted again.\n"


def _push_results(options: argparse.Namespace) -> tuple[Any, str]:
    experiment = load_params(options.params).registry.results
    done = results.push(options.runs, experiment)
    return _moved(done, "pushed"), _told(done, "pushed to", experiment)


def _pull_results(options: argparse.Namespace) -> tuple[Any, str]:
    if options.folder.resolve() == options.runs.resolve():
        raise BadParams(f"{options.folder} holds the results that DVC makes; name another folder.")
    experiment = load_params(options.params).registry.results
    done = results.pull(options.folder, experiment)
    return _moved(done, "pulled"), _told(done, "pulled from", experiment)


def _moved(done: list[results.Moved], word: str) -> dict[str, list[str]]:
    return {
        word: [one.place for one in done if not one.unchanged],
        "unchanged": [one.place for one in done if one.unchanged],
    }


def _told(done: list[results.Moved], words: str, experiment: str) -> str:
    new = sum(not one.unchanged for one in done)
    return f"{new} of {len(done)} results {words} {experiment!r}; the others were there.\n"


def _model_name(name: str, params: Path) -> str:
    """The registered model that a name means: where it is a dataset's, the one that its champions are versions of."""
    if not params.is_file():
        return name
    found = load_params(params)
    is_dataset = name in found.datasets or (params.parent / "datasets" / f"{name}.yaml").is_file()
    return found.registry.production_model.format(dataset=name) if is_dataset else name


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise BadParams(f"{message} (see {self.prog} --help).")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m registry", description="Look at the model registry.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("list", help="all models and versions, with aliases and metrics")
    one.set_defaults(command=_list)
    show = commands.add_parser("show", help="one model: lineage and metrics of its versions")
    show.add_argument("name", help="the registered model's name")
    show.set_defaults(command=_show)
    load = commands.add_parser("load", help="check a model's digests, load it and classify an image")
    load.add_argument("name", help="the registered model's name")
    load.add_argument("--alias", default=CHAMPION, help="which version (default: %(default)s)")
    load.add_argument("--image", type=Path, metavar="FILE", help="a PNG, JPEG or TIFF image to classify")
    load.set_defaults(command=_load)
    _add_results(commands)
    _add_changes(commands)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_results(commands: Any) -> None:
    push = commands.add_parser("push-results", help="log the experiments' results to MLflow")
    push.set_defaults(command=_push_results)
    pull = commands.add_parser("pull-results", help="fetch the newest results in MLflow, for a table")
    pull.add_argument("folder", type=Path, help="a folder for them, which `table --runs` reads")
    pull.set_defaults(command=_pull_results)
    for command in (push, pull):
        command.add_argument("--runs", type=Path, default=Path("runs"), help="DVC's results (default: %(default)s)")
        _add_params(command)


def _add_params(command: argparse.ArgumentParser) -> None:
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="the params (default: %(default)s)")


def _add_changes(commands: Any) -> None:
    back = commands.add_parser("rollback", help="make the version before the champion the champion again")
    back.add_argument("--version", type=int, help="the champion that is meant; another one is left alone")
    back.add_argument("--to", type=int, metavar="VERSION", help="the version to go back to (default: previous)")
    back.set_defaults(command=_rollback)
    lift = commands.add_parser("unquarantine", help="let a version that was rolled back be promoted again")
    lift.add_argument("--version", type=int, required=True, help="the version in quarantine")
    lift.set_defaults(command=_unquarantine)
    for command in (back, lift):
        command.add_argument("name", help="the dataset's or the registered model's name")
        command.add_argument("--reason", required=True, help="why; it is kept with the version")
        _add_params(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
