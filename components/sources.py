"""The digests of what the stages and the methods run, and the file in which DVC finds them."""

from pathlib import Path

from clinprompt.contract.files import PARAMS_SCHEMA, SOURCES_LOCK
from clinprompt.errors import BadParams
from clinprompt.files import sha256_bytes, write_text
from clinprompt.schema import read_yaml
from clinprompt.sources import closure, digest
from components import parsed

ROOT = Path(__file__).parents[1]
METHODS = Path("clinprompt", "methods")
RULES = Path("clinprompt", "evaluation", "rules")

_HEAD = """\
# For each stage and each method, the digest of exactly the sources that it runs: syntax trees without docstrings and
# comments, the values of YAML files, the bytes of others. `dvc repro` renews this file first.
"""


def stage_digest(name: str, root: Path = ROOT) -> str:
    """Of what the stage's command runs, but for methods and layouts, of which it runs those that are asked for."""
    return digest_of([f"components.{name}.__main__"], root)


def method_digest(name: str, root: Path = ROOT) -> str:
    """Of the method's file and what that imports."""
    return digest_of([f"clinprompt.methods.{name}"], root)


def digest_of(modules: list[str], root: Path) -> str:
    """SHA-256 over the names and the digests of the files that importing the modules runs.

    The schema of params.yaml is left out: it changes with any method's knobs, and decides only what is let through.
    """
    files = closure(modules, root)
    if RULES / "__init__.py" in map(Path, files):  # the package imports its modules by names of params.yaml
        files = closure([*modules, *(f"clinprompt.evaluation.rules.{name}" for name in modules_of(RULES, root))], root)
    lines = [f"{name} {digest(file)}\n" for name, file in files.items() if name != PARAMS_SCHEMA]
    return sha256_bytes("".join(lines).encode())


def sources_lock(root: Path = ROOT) -> str:
    """The text of infra/sources.lock for the project at `root`."""
    stages = sorted(path.parent.name for path in (root / "components").glob("*/component.yaml"))
    methods = modules_of(METHODS, root)
    lines = ["stages:\n", *(f"  {name}: {stage_digest(name, root)}\n" for name in stages)]
    lines += ["methods:\n", *(f"  {name}: {method_digest(name, root)}\n" for name in methods)]
    return _HEAD + "".join(lines)


def modules_of(package: Path, root: Path) -> list[str]:
    """The names of a package's modules, sorted."""
    return sorted(path.stem for path in (root / package).glob("*.py") if path.stem != "__init__")


def write_sources_lock(root: Path, path: Path) -> bool:
    """Bring the lock of the project at `root` up to date; whether it had to be."""
    text = sources_lock(root)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def check_sources(stage: str, methods: list[str]) -> None:
    """Refuse to run code that DVC takes for other code: what came of it would pass for a result of the locked one.

    Nothing is checked where there is no infra/sources.lock, as DVC is not what runs the stage then.

    Raises:
        BadParams: the sources of the stage, or of a method that it runs, are not those of the lock.
    """
    path = Path(SOURCES_LOCK)
    if stage == "lock" or not path.is_file():
        return
    locked = read_yaml(path)
    parsed.recall(Path())
    now = {"stages": {stage: stage_digest(stage)}, "methods": {name: method_digest(name) for name in methods}}
    for kind, digests in now.items():
        for name, value in digests.items():
            if locked.get(kind, {}).get(name) != value:
                raise BadParams(
                    f"{path}: {kind}.{name}: is not the digest of the sources as they are now; run `dvc repro lock`, "
                    "then this stage again (a whole `dvc repro` does both)."
                )
