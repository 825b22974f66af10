"""`component.yaml`: what a component takes, gives, reads from the params, needs and answers.

`python -m components.interface` writes it as a JSON schema, for programs that cannot import this package.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.errors import BadParams
from clinprompt.schema import Name, Section, check, read_yaml

FOLDER = Path(__file__).parent


class Argument(Section):
    """A plain value on the command line, such as the dataset's name."""

    about: str
    type: Literal["string", "integer"] = "string"


class Artifact(Section):
    """A file or folder that is passed by path."""

    about: str
    kind: Literal["file", "folder"] = "file"
    optional: bool = False


class Output(Artifact):
    """What the component writes.

    `keep: true` leaves an earlier run's output in place for the component to build on; the component then writes it
    itself, atomically. `metric: true` marks the JSON that `dvc metrics` compares.
    """

    keep: bool = False
    metric: bool = False


class Resources(Section):
    """What a scheduler should reserve."""

    cpu: Annotated[float, Field(gt=0)]
    memory: Annotated[str, Field(pattern=r"^\d+(Mi|Gi)$")]
    gpu: Literal["none", "optional", "required"] = "none"


class Interface(Section):
    """The whole of a `component.yaml`. `params` may hold `{argument}`, as in `methods.{method}`.

    `pool`, `retries` and `timeout_minutes` are for a scheduler; a retry makes sense only after some exit codes.
    """

    name: Name
    about: str
    arguments: dict[str, Argument] = {}
    inputs: dict[str, Artifact] = {}
    outputs: dict[str, Output] = Field(min_length=1)
    params: list[str] = []
    image: Literal["data", "vision", "registry"]
    resources: Resources
    pool: Literal["default", "gpu", "promotion"] = "default"
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_minutes: PositiveInt
    exit_codes: list[int]


def load_interface(name: str, folder: Path = FOLDER) -> Interface:
    """Read and check a component's interface.

    Raises:
        BadParams: an unknown key, a wrong type, an exit code outside the shared table; the key is named.
    """
    path = folder / name / "component.yaml"
    interface = check(Interface, read_yaml(path), str(path))
    if interface.name != name:
        raise BadParams(f"{path}: name: must be {name!r}, the folder's name, found {interface.name!r}.")
    unknown = sorted(set(interface.exit_codes) - {int(code) for code in ExitCode})
    if unknown:
        raise BadParams(f"{path}: exit_codes: {unknown[0]} is not in the shared table of exit codes.")
    return interface


def schema() -> str:
    """The JSON schema of a `component.yaml`, as it stands in `components/component.schema.json`."""
    return json.dumps(Interface.model_json_schema(), indent=2, sort_keys=True) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the schema."""
    from clinprompt import cli  # the stages, which read this module, need no command line of its kind

    app = cli.application()
    app.command(help=__doc__)(lambda: sys.stdout.write(schema()))
    return cli.main(app, argv, "python -m components.interface")


if __name__ == "__main__":
    sys.exit(main())
