"""`python -m registry list | show NAME | load NAME [--image FILE]`: look at the registry and try a model out."""

import argparse
import sys
from pathlib import Path
from typing import Any

from clinprompt.errors import BadParams, ClinpromptError, InputMissing
from clinprompt.files import to_json
from registry import champion, listing
from registry.versions import CHAMPION


def main(argv: list[str]) -> int:
    """Run a command; the exit code is 0 or that of the error."""
    try:
        options = _parser().parse_args(argv)
        value, text = options.command(options)
    except ClinpromptError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    sys.stdout.write(to_json(value) if options.json else text)
    return 0


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
    for command in (one, show, load):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
