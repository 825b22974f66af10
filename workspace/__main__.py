"""`python -m workspace`: the tasks of a scheduler, and the releases and records for people."""

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from clinprompt import cli
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.variables import RESULT_FILE
from clinprompt.contract.variables import TASK as VARIABLE
from clinprompt.errors import ClinpromptError, Interrupted
from clinprompt.files import write_text
from clinprompt.process import short_lived
from workspace.store import Store, open_store

log = logging.getLogger("clinprompt")
app = cli.application(__doc__)


def main(argv: list[str]) -> int:
    """Run one command; the result is the last line of standard output, and all there is on it."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    logging.getLogger("dvc").propagate = False  # it has a handler of its own
    for name in ("aiobotocore", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what DVC and the components print is for the log
    try:
        answer, code = cli.invoke(app, argv, "python -m workspace"), 0
    except (Exception, KeyboardInterrupt) as error:
        answer = _explain(error)
        code = answer["exit_code"]
        sys.stderr.write(f"{answer['message']}\n")
    if answer is None:  # the help, which is printed
        return 0
    line = json.dumps(answer, sort_keys=True)
    if os.environ.get(RESULT_FILE):
        write_text(Path(os.environ[RESULT_FILE]), line + "\n")
    with contextlib.suppress(BrokenPipeError):  # nobody reads it: the task is done all the same
        result.write(line + "\n")
        result.close()
    return int(code)


def _plan(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.plan import plan
    from workspace.task import PlanTask, read_task

    return {"plan": plan(read_task(PlanTask, text), store).model_dump()}


def _sweep(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.plan import sweep
    from workspace.task import SweepTask, read_task

    return {"releases": sweep(read_task(SweepTask, text), store)}


def _promotion(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.plan import promotion
    from workspace.task import PromotionTask, read_task

    return promotion(read_task(PromotionTask, text), store)


def _probe(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.stage import probe
    from workspace.task import StageTask, read_task

    return probe(read_task(StageTask, text), store)


def _stage(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.stage import run_stage
    from workspace.task import StageTask, read_task

    return run_stage(read_task(StageTask, text), store)


def _record(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.records import record
    from workspace.task import RecordTask, read_task

    return record(read_task(RecordTask, text), store)


def _unasked(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.review import unasked
    from workspace.task import UnaskedTask, read_task

    return unasked(read_task(UnaskedTask, text), store)


def _review(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.review import review
    from workspace.task import ReviewTask, read_task

    return review(read_task(ReviewTask, text), store)


def _decide(text: str | None, store: Store) -> dict[str, Any]:
    from workspace.decisions import keep
    from workspace.task import AnsweredTask, read_task

    return keep(read_task(AnsweredTask, text), store)


_TASKS: dict[str, Callable[[str | None, Store], dict[str, Any]]] = {
    "plan": _plan,
    "sweep": _sweep,
    "promotion": _promotion,
    "probe": _probe,
    "stage": _stage,
    "record": _record,
    "unasked": _unasked,
    "review": _review,
    "decide": _decide,
}


def _command(task: Callable[[str | None, Store], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    return lambda: task(os.environ.get(VARIABLE), open_store())


for _name, _task in _TASKS.items():
    app.command(_name, help=f"a scheduler's task; reads {VARIABLE}")(_command(_task))


@app.command("release", help="publish a version of a dataset's files into the store")
def _release(
    dataset: Annotated[str, typer.Argument(help="the name of its card")],
    folder: Annotated[Path | None, typer.Argument(help="the files; by default data/DATASET")] = None,
    name: Annotated[str | None, typer.Option(help="by default the first digits of the files' digest")] = None,
) -> dict[str, Any]:
    from workspace.releases import publish

    release, new = publish(open_store(), dataset, folder or Path(f"data/{dataset}"), name)
    log.info("%s is %s.", release.partition, "published" if new else "in the store already, with the same files")
    return asdict(release)


@app.command("releases", help="list the releases")
def _releases(dataset: Annotated[str | None, typer.Argument()] = None) -> dict[str, Any]:
    from workspace.releases import list_releases

    return {"releases": [asdict(release) for release in list_releases(open_store(), dataset)]}


@app.command("checkout", help="restore a recorded run in this clone: dvc.lock, params, files")
def _checkout(run: Annotated[str, typer.Argument(help="DATASET or DATASET@RELEASE")]) -> dict[str, Any]:
    from workspace.checkout import checkout

    return checkout(open_store(), run, Path.cwd())


@app.command("decisions", help="write what people have decided when they were asked, and the card's own file lacks")
def _decisions(
    dataset: Annotated[str, typer.Argument(help="the name of its card")],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.csv", help="for python -m clinprompt.knowledge decide", callback=cli.file_to_write),
    ],
) -> dict[str, Any]:
    from workspace.decisions import export

    return export(open_store(), dataset, out)


@app.command("discard", help="remove objects that an error calls corrupt from the store; their stages make them again")
def _discard(digests: Annotated[list[str], typer.Argument(help="as the error names them")]) -> dict[str, Any]:
    from workspace.objects import discard
    from workspace.repo import Workspace

    with Workspace.empty(open_store()) as workspace:
        return {"removed": discard(workspace.repo, digests)}


def _explain(error: BaseException) -> dict[str, Any]:
    from workspace.stage import StageFailed

    code, message = int(ExitCode.BUG), f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt | Interrupted):
        code, message = int(ExitCode.INTERRUPTED), "interrupted; run the task again."
    elif isinstance(error, StageFailed):
        code, message = error.code, str(error)
    elif isinstance(error, ClinpromptError):
        code, message = int(error.exit_code), str(error)
    else:
        log.error("unexpected error", exc_info=error)
    return {"status": "failed", "exit_code": code, "message": message}


def _interrupt(signum: int, frame: FrameType | None) -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):  # the component, which would go on without us
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    raise Interrupted(f"stopped by {signal.Signals(signum).name}")


if __name__ == "__main__":
    short_lived()
    sys.exit(main(sys.argv[1:]))
