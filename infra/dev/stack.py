"""Starts and stops the servers that the pipeline meets in production, below one folder and on 127.0.0.1.

python infra/dev/stack.py up --folder /tmp/stack
eval "$(python infra/dev/stack.py env --folder /tmp/stack)"
python infra/dev/stack.py down --folder /tmp/stack
"""

import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

sys.path[0:0] = [str(Path(__file__).resolve().parents[2])]

from clinprompt import cli  # noqa: E402
from clinprompt.errors import BadParams  # noqa: E402
from infra.dev.servers import PARTS, Stack  # noqa: E402
from infra.dev.servers.stack import wait_for_end  # noqa: E402

app = cli.application("\b\n" + __doc__.replace("\n\n", "\n\n\b\n"))
_Folder = Annotated[Path, typer.Option(help="where everything of this stack lies")]
_Part = Annotated[str, typer.Argument(metavar="PART", callback=cli.one_of(PARTS), help=", ".join(PARTS))]


@app.command()
def up(
    folder: _Folder,
    executor: Literal["celery", "local"] = "celery",
    dags: Annotated[list[str] | None, typer.Option(metavar="NAME=FOLDER", help="a DAG bundle")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="a variable")] = None,
) -> None:
    """Start the servers and say where they are."""
    bundles = {name: Path(path) for name, path in (_pair(text, "--dags") for text in dags or [])}
    variables = dict(_pair(text, "--set") for text in settings or [])
    stack = Stack.new(folder, dags=bundles or None, executor=executor, settings=variables)
    start = time.monotonic()
    stack.up()
    for name, seconds in stack.seconds.items():
        print(f"{name:<14} {seconds:5.1f} s")
    print(f"all started in {time.monotonic() - start:.0f} s")
    print(f"Airflow        {stack.url}  user admin, password in {stack.folder}/airflow/passwords.json")
    print(f"MLflow         {stack.config.url('mlflow')}")
    print(f'variables      eval "$(python infra/dev/stack.py env --folder {shlex.quote(str(stack.folder))})"')


@app.command()
def down(folder: _Folder) -> None:
    """Stop everything."""
    Stack.open(folder).down()


@app.command()
def env(folder: _Folder) -> None:
    """Print the variables with which the components reach the servers, for a shell's eval."""
    for name, value in Stack.open(folder).env.items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def status(folder: _Folder) -> None:
    """Print each part's pid, port and memory."""
    total = 0
    for name, pid, port, used in Stack.open(folder).status():
        total += used
        print(f"{name:<14} {f'pid {pid}' if pid else 'not running':<12} {port or '':<6} {used / 2**20:6.0f} MiB")
    print(f"{'total':<34} {total / 2**20:6.0f} MiB")


@app.command()
def start(part: _Part, folder: _Folder) -> None:
    """Start one part."""
    Stack.open(folder).start(part)


@app.command()
def stop(part: _Part, folder: _Folder) -> None:
    """Stop one part."""
    Stack.open(folder).stop(part)


@app.command()
def restart(part: _Part, folder: _Folder) -> None:
    """Stop and start one part."""
    Stack.open(folder).restart(part)


@app.command()
def kill(part: _Part, folder: _Folder) -> None:
    """Kill one part, without warning."""
    Stack.open(folder).kill(part)


@app.command()
def guard(folder: _Folder, pid: Annotated[int, typer.Option(help="the process that is watched")]) -> None:
    """Stop everything when a process ends."""
    stack = Stack.open(folder)
    wait_for_end(pid)
    stack.down()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    return cli.main(app, argv, "python infra/dev/stack.py")


def _pair(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise BadParams(f"{option} {text}: expected NAME=VALUE.")
    return name, value


def _interrupt(number: int, frame: object) -> NoReturn:
    """Make of SIGTERM what Ctrl-C is; once, so that the stopping isn't interrupted."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
