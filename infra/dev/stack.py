"""Starts and stops the servers that the pipeline meets in production, below one folder and on 127.0.0.1.

python infra/dev/stack.py up --folder /tmp/stack
eval "$(python infra/dev/stack.py env --folder /tmp/stack)"
python infra/dev/stack.py down --folder /tmp/stack
"""

import argparse
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

sys.path[0:0] = [str(Path(__file__).resolve().parents[2])]

from clinprompt.contract.exit_codes import ExitCode  # noqa: E402
from clinprompt.errors import BadParams, ClinpromptError  # noqa: E402
from infra.dev.servers import PARTS, Stack  # noqa: E402
from infra.dev.servers.stack import wait_for_end  # noqa: E402


def up(arguments: argparse.Namespace) -> None:
    """Start the servers and say where they are."""
    dags = dict(_pair(text, "--dags") for text in arguments.dags) or None
    settings = dict(_pair(text, "--set") for text in arguments.set)
    stack = Stack.new(
        arguments.folder,
        dags={name: Path(path) for name, path in dags.items()} if dags else None,
        executor=arguments.executor,
        settings=settings,
    )
    start = time.monotonic()
    stack.up()
    for name, seconds in stack.seconds.items():
        print(f"{name:<14} {seconds:5.1f} s")
    print(f"all started in {time.monotonic() - start:.0f} s")
    print(f"Airflow        {stack.url}  user admin, password in {stack.folder}/airflow/passwords.json")
    print(f"MLflow         {stack.config.url('mlflow')}")
    print(f'variables      eval "$(python infra/dev/stack.py env --folder {shlex.quote(str(stack.folder))})"')


def status(stack: Stack) -> None:
    """Print each part's pid, port and memory."""
    total = 0
    for name, pid, port, used in stack.status():
        total += used
        print(f"{name:<14} {f'pid {pid}' if pid else 'not running':<12} {port or '':<6} {used / 2**20:6.0f} MiB")
    print(f"{'total':<34} {total / 2**20:6.0f} MiB")


def env(stack: Stack) -> None:
    """Print the variables with which the components reach the servers, for a shell's eval."""
    for name, value in stack.env.items():
        print(f"export {name}={shlex.quote(value)}")


def guard(stack: Stack, pid: int) -> None:
    """Stop everything when a process ends."""
    wait_for_end(pid)
    stack.down()


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "env", "status", "start", "stop", "restart", "kill", "guard"):
        command = commands.add_parser(name)
        command.add_argument("--folder", type=Path, required=True, help="where everything of this stack lies")
        if name in ("start", "stop", "restart", "kill"):
            command.add_argument("part", choices=list(PARTS))
        if name == "guard":
            command.add_argument("--pid", type=int, required=True, help="the process that is watched")
        if name == "up":
            command.add_argument("--executor", choices=["celery", "local"], default="celery")
            command.add_argument("--dags", action="append", default=[], metavar="NAME=FOLDER", help="a DAG bundle")
            command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a variable")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.command == "up":
            up(arguments)
            return
        stack = Stack.open(arguments.folder)
        if arguments.command == "guard":
            guard(stack, arguments.pid)
        elif arguments.command in ("env", "status"):
            {"env": env, "status": status}[arguments.command](stack)
        elif arguments.command == "down":
            stack.down()
        else:
            getattr(stack, arguments.command)(arguments.part)
    except ClinpromptError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None


def _pair(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise BadParams(f"{option} {text}: expected NAME=VALUE")
    return name, value


def _interrupt(number: int, frame: object) -> NoReturn:
    """Make of SIGTERM what Ctrl-C is; once, so that the stopping isn't interrupted."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
