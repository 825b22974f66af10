"""What every component's command does around its work: arguments, params, atomic outputs, exit code, result line.

A component is `run(__file__, work)` with `work(job) -> result`. Standard output holds one line of JSON, the result;
everything else goes to standard error. What it writes others can't read (`components.rights`).
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, overload

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.params_schema import method_names
from clinprompt.contract.variables import RESULT
from clinprompt.errors import BadParams, ClinpromptError, DataRejected, InputMissing, Interrupted
from clinprompt.files import check_place, partial_path, publish, remove
from clinprompt.os_errors import explained
from clinprompt.output import tolerant
from clinprompt.params import CandidateSpec, Params, load_params
from clinprompt.process import short_lived
from clinprompt.schema import Section
from components.inputs import check_inputs
from components.interface import Interface, load_interface
from components.rights import own_umask
from components.sources import check_sources

log = logging.getLogger("clinprompt")

S = TypeVar("S", bound=Section)
_SECTIONS = {field.annotation: key for key, field in Params.model_fields.items()}  # the models' keys in params.yaml


@dataclass(frozen=True)
class Job:
    """One call of a component: its arguments, where its inputs lie and where to write its outputs.

    `outputs` are temporary paths, renamed when the work has succeeded, except those with `keep: true`, which are the
    final ones. `params_file` is where the params were read from.
    """

    arguments: dict[str, Any]
    inputs: dict[str, Path]
    outputs: dict[str, Path]
    final: dict[str, Path]
    params_file: Path
    _params: Params
    _declared: tuple[str, ...]

    @overload
    def params(self, section: type[S]) -> S: ...

    @overload
    def params(self, section: str) -> Any: ...

    def params(self, section: type[S] | str) -> S | Any:
        """A section of params.yaml by its model, as `CacheParams`, or a part of one by its key, as "methods.coop".

        Raises:
            KeyError: the interface does not declare it.
        """
        key = section if isinstance(section, str) else _SECTIONS[section]
        if key not in self._declared:
            raise KeyError(f"component.yaml does not declare the params {key!r}")
        value: Any = self._params
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value

    @property
    def all_params(self) -> Params:
        """The whole of params.yaml, for what is no stage's work."""
        return self._params

    def candidate(self, name: str) -> CandidateSpec:
        """What a candidate's name means.

        Raises:
            BadParams: it is neither a method nor a variant.
        """
        for key in ("candidates.variants", "methods"):
            self.params(key)  # must be declared
        return self._params.candidate(name)


Work = Callable[[Job], dict[str, Any]]


def run(file: str, work: Work) -> None:
    """Run a component's work from the command line and exit with its code. `file` is the caller's `__file__`."""
    short_lived()
    folder = Path(file).parent
    sys.exit(execute(folder.name, work, sys.argv[1:], folder.parent))


def execute(name: str, work: Work, argv: list[str], folder: Path) -> int:
    """Run a component's work and return its exit code; the testable part of `run`."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    logging.captureWarnings(True)
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        with own_umask():
            result = _attempt(load_interface(name, folder), work, argv)
    except (Exception, KeyboardInterrupt) as error:
        return _fail(name, *_explain(name, error))
    line = {"component": name, "seconds": round(time.monotonic() - started, 1), "status": "ok", **result}
    _tell(line)
    return int(result.get("exit_code", ExitCode.OK))


def _explain(component: str, error: BaseException) -> tuple[ExitCode, str]:
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return ExitCode.INTERRUPTED, "interrupted; run the same command again to go on."
    if isinstance(error, ClinpromptError):
        return error.exit_code, str(error)
    if known := explained(error):
        return known.exit_code, str(known)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        advice = "free it, or set CLINPROMPT_MICRO_BATCHES=2 or more, which trains with the same effective batch."
        if component == "describe":
            advice = (
                "free it, lower knowledge.batch_size, or set knowledge.device: all_gpus or a knowledge.quantization."
            )
        return ExitCode.GPU_OUT_OF_MEMORY, f"the GPU's memory is too small; {advice}"
    log.error("%s: unexpected error", component, exc_info=error)
    return ExitCode.BUG, f"{type(error).__name__}: {error}"


def _attempt(interface: Interface, work: Work, argv: list[str]) -> dict[str, Any]:
    options = vars(_parser(interface).parse_args(argv))
    arguments = {key: options[key] for key in interface.arguments}
    inputs = {key: Path(options[key]) for key in interface.inputs if options[key] is not None}
    final = {key: Path(options[key]) for key in interface.outputs}
    declared = tuple(key.format(**arguments) for key in interface.params)
    params_file = Path(options["params"])
    params = load_params(params_file)
    for key, path in inputs.items():
        if not path.exists():
            raise InputMissing(f"--{key} {path} does not exist; run the stage that makes it (dvc repro).")
    check_sources(interface.name, _methods(arguments, params))
    check_inputs(inputs)
    outputs = {k: path if interface.outputs[k].keep else partial_path(path) for k, path in final.items()}
    for key, path in outputs.items():
        check_place(final[key])
        path.parent.mkdir(parents=True, exist_ok=True)
        if path != final[key]:
            remove(path)
    finished = False
    try:
        result = work(Job(arguments, inputs, outputs, final, params_file, params, declared))
        finished = True
    except DataRejected as error:
        finished = error.publish
        raise
    finally:
        for key, path in outputs.items():
            if path != final[key]:
                if finished and path.exists():
                    publish(path, final[key])
                remove(path)
    return result


def _methods(arguments: dict[str, Any], params: Params) -> list[str]:
    """The methods whose code a call runs, as its arguments name them."""
    named = params.candidates.method_of(arguments["candidate"]) if "candidate" in arguments else arguments.get("method")
    return [named] if named in method_names() else []  # what is no method the work itself refuses


def _parser(interface: Interface) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m components.{interface.name}", description=interface.about, allow_abbrev=False)
    for key, argument in interface.arguments.items():
        kind = int if argument.type == "integer" else str
        parser.add_argument(f"--{key.replace('_', '-')}", dest=key, type=kind, required=True, help=argument.about)
    for key, artifact in (interface.inputs | interface.outputs).items():
        parser.add_argument(
            f"--{key.replace('_', '-')}", dest=key, required=not artifact.optional, metavar="PATH", help=artifact.about
        )
    parser.add_argument("--params", default="params.yaml", metavar="PATH", help="the params file")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:  # argparse itself would exit with 2, which is in no table
        raise BadParams(f"{message} (see {self.prog} --help).")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(f"stopped by {signal.Signals(signum).name}")


def _fail(name: str, code: ExitCode, message: str) -> int:
    sys.stderr.write(f"{name}: {message}\n")
    line = {"component": name, "status": code.name.lower(), "exit_code": int(code), "message": message}
    _tell(line)
    return int(code)


def _tell(line: dict[str, Any]) -> None:
    text = json.dumps(line, default=str) + "\n"
    with tolerant():
        sys.stdout.write(text)
    if os.environ.get(RESULT):
        Path(os.environ[RESULT]).write_text(text, encoding="utf-8")
