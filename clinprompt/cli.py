"""What the command lines share: a plain Typer application, wrong usage as `BadParams`, and the shared exit codes."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import typer
import typer.main

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.errors import BadParams, ClinpromptError
from clinprompt.files import check_place
from clinprompt.os_errors import explained
from clinprompt.output import tolerant


def application(about: str | None = None) -> typer.Typer:
    """An empty application: plain text, tracebacks as Python's own, no options that install shell completion."""
    return typer.Typer(
        help=about,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def invoke(app: typer.Typer, argv: Sequence[str], program: str) -> Any:
    """Parse the arguments, run the command that they name and return what it returns; None after `--help`.

    Args:
        program: how the user calls it, as "python -m registry".

    Raises:
        BadParams: wrong usage: an unknown command or option, a missing or impossible value.
        ClinpromptError: what the command raises; what the operating system refuses has a sentence, too.
    """
    command = typer.main.get_command(app)
    try:
        # Not `command(...)`, which would turn Ctrl-C into exit code 130.
        with tolerant(), command.make_context(program, list(argv)) as context:
            return command.invoke(context)
    except typer.Exit:
        return None
    except typer.TyperException as error:
        context_of_error = getattr(error, "ctx", None)
        asked = context_of_error.command_path if context_of_error else program
        reason = " ".join(error.format_message().split()).rstrip(".")
        raise BadParams(f"{reason} (see {asked} --help).") from None
    except ClinpromptError:
        raise
    except Exception as error:
        if isinstance(error, UnicodeEncodeError):
            for argument in argv:
                if argument != argument.encode("utf-8", "replace").decode("utf-8"):
                    raise BadParams(f"{argument!r} is no text: it holds bytes that are not UTF-8's.") from None
        known = explained(error)
        raise known or error from error.__cause__


def main(app: typer.Typer, argv: Sequence[str] | None, program: str) -> int:
    """Run a command whose work prints for itself; an error becomes its sentence on standard error and its exit code.

    Args:
        argv: the arguments; those of the process by default.
    """
    try:
        invoke(app, sys.argv[1:] if argv is None else argv, program)
    except ClinpromptError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted.\n")
        return int(ExitCode.INTERRUPTED)
    return 0


def one_of(names: Collection[str]) -> Callable[[Any], Any]:
    """A callback that refuses a value, or one of several values, that is not among the names."""

    def check(value: Any) -> Any:
        for name in value if isinstance(value, list) else [value]:
            if name is not None and name not in names:
                raise typer.BadParameter(f"{name!r} is none of {', '.join(names)}")
        return value

    return check


def file_to_write(path: Path | None) -> Path | None:
    """A callback that refuses, before any work, where no file can be written: a folder, a device, no name at all."""
    if path is not None:
        if path.exists() and not path.is_file():
            raise typer.BadParameter(f"{str(path)!r} is a folder or a device; name a file")
        check_place(path)
    return path


def folder_to_write(path: Path | None) -> Path | None:
    """A callback that refuses, before any work, where no folder can be written: a file, no name at all."""
    if path is not None:
        if path.exists() and not path.is_dir():
            raise typer.BadParameter(f"{str(path)!r} is a file; name a folder")
        check_place(path)
    return path


def activation() -> str:
    """What a shell must run before `python` and `dvc` are those of this environment; empty where they are."""
    script = Path(sys.prefix) / "bin" / "activate"
    active = os.environ.get("VIRTUAL_ENV")
    if not script.is_file() or (active and Path(active).resolve() == Path(sys.prefix).resolve()):
        return ""
    shown = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    return f"source {shown}"
