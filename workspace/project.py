"""The code that a run is pinned to: its digest, and a copy of it with the run's params."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinprompt.contract.files import IMAGES_LOCK, SETTINGS_LOCK, SOURCES_LOCK
from clinprompt.contract.variables import CODE
from clinprompt.errors import BadParams
from clinprompt.files import sha256_file, write_text
from clinprompt.params import Params
from clinprompt.revision import BUILT_FROM, git_commit
from clinprompt.schema import check, read_yaml, to_yaml
from components.lock.fit import check_fit
from components.lock.settings import cards, settings_lock
from components.sources import sources_lock
from workspace.store import checked_name

# What a stage may read: the rest of a checkout is for people.
_PARTS = ("dvc.yaml", "params.yaml", ".dvcignore", "clinprompt", "components", "datasets", "registry")
_REQUIREMENTS = "requirements/components.txt"


def project_root() -> Path:
    """The project whose code tasks run: CLINPROMPT_CODE, or the one that this package lies in."""
    return Path(os.environ.get(CODE) or Path(__file__).parents[1]).absolute()


def code_digest(root: Path) -> str:
    """SHA-256 over the names and bytes of all files that a stage may read, but for infra/images.lock.

    The images hold this code, so their own digests cannot be part of it.
    """
    total = hashlib.sha256()
    for file in _files(root):
        total.update(f"{file.relative_to(root).as_posix()}\0{sha256_file(file)}\n".encode())
    return total.hexdigest()


def copy_code(root: Path, target: Path, images: str | None) -> None:
    """Copy the code into an empty folder, with the commit that it is of, as an image has it: no git is copied.

    Args:
        images: the text of infra/images.lock; None for the project's own.
    """
    for file in _files(root):
        copy = target / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    lock = root / IMAGES_LOCK
    if images is None and lock.is_file():
        images = lock.read_text(encoding="utf-8")
    write_text(target / IMAGES_LOCK, images or "{}\n")
    if commit := git_commit(root):
        write_text(target / BUILT_FROM, f"{commit}\n")


def run_params(root: Path, dataset: str, overrides: dict[str, Any]) -> tuple[str, Params]:
    """The params of a run on one dataset, as YAML and checked: the project's, with overrides merged into them.

    Raises:
        BadParams: an override that params.yaml has no key for, or a wrong type; the key is named.
    """
    path = root / "params.yaml"
    value = _merged(read_yaml(path), {**overrides, "datasets": [dataset]})
    params = check(Params, value, f"{path} with the run's overrides")
    return to_yaml(value, sort_keys=False), params


def card_file(root: Path, dataset: str) -> Path:
    """The file of a dataset's card.

    Raises:
        BadParams: there is none.
    """
    file = root / "datasets" / f"{checked_name(dataset)}.yaml"
    if not file.is_file():
        raise BadParams(f"datasets/{dataset}.yaml does not exist; write the dataset's card first.")
    return file


def lock_texts(root: Path, params: Params, decisions: str | None = None) -> dict[str, str]:
    """What the stage `lock` would write for the project at `root`, by path.

    Args:
        decisions: SHA-256 of the decisions that a run has in the place of those of its card's own file.

    Raises:
        BadParams: a candidate does not fit the backbone or the language model.
    """
    check_fit(params, cards(params, root))
    return {SOURCES_LOCK: sources_lock(root), SETTINGS_LOCK: settings_lock(params, root, decisions)}


def _merged(base: Any, change: Any) -> Any:
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: _merged(base.get(key), value) for key, value in change.items()}
    return change


def _files(root: Path) -> Iterator[Path]:
    for part in (*_PARTS, _REQUIREMENTS):
        path = root / part
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        else:
            raise BadParams(f"{path} does not exist; set {CODE} to the project's folder.")
