"""A workspace: a fresh folder with the run's code and params, and DVC in it, for one process."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from clinprompt.contract.variables import CACHE, SCRATCH
from clinprompt.errors import BadParams, InputMissing
from clinprompt.files import write_text
from clinprompt.schema import to_yaml
from clinprompt.scratch import ScratchFolder
from workspace.decisions import put_pinned
from workspace.objects import pull
from workspace.project import code_digest, copy_code, lock_texts, project_root, run_params
from workspace.store import Store, service_errors
from workspace.task import LockEntry, Plan

log = logging.getLogger(__name__)

_REMOTE = "clinprompt-store"
_CACHE_TYPES = ["reflink", "hardlink", "copy"]


class Workspace:
    """DVC in a folder of its own, which is removed with all that was not pushed when the process ends.

    DVC's locks hold process ids, which mean nothing in another container: a workspace is never shared.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        from dvc.repo import Repo

        self.folder = folder
        self.store = store
        config = {
            "core": {"analytics": False, "check_update": False, "remote": _REMOTE},
            "cache": {"type": _CACHE_TYPES},
            # S3 is trusted by default: a flipped byte would be trained on.
            "remote": {_REMOTE: {"url": store.remote, "verify": True}},
        }
        self.repo: Any = Repo(str(folder), config=config)

    @classmethod
    @contextmanager
    def empty(cls, store: Store) -> Iterator["Workspace"]:
        """A workspace without code."""
        with _scratch() as folder:
            yield cls(folder, store)

    @classmethod
    @contextmanager
    def of(cls, plan: Plan, store: Store) -> Iterator["Workspace"]:
        """A workspace with the code and the params of a run.

        Raises:
            BadParams: the project's code is no longer that of the plan.
        """
        root = project_root()
        if code_digest(root) != plan.code:
            raise BadParams(
                f"The code in {root} has changed since the run was planned; start a new run (or run it from images, "
                "or from a versioned DAG bundle, which keep the code of a run)."
            )
        with _scratch() as folder:
            copy_code(root, folder, plan.images)
            put_pinned(plan, store, folder)
            text, params = run_params(root, plan.dataset, plan.overrides)
            (folder / "params.yaml").write_text(text)
            for name, lock in (plan.locks or lock_texts(folder, params)).items():
                write_text(folder / name, lock)
            yield cls(folder, store)

    def stage(self, address: str) -> Any:
        """DVC's stage, as dvc.yaml and params.yaml define it.

        Raises:
            BadParams: there is no such stage with these params.
        """
        from dvc.stage.exceptions import StageNotFound

        try:
            return self.repo.stage.load_one(name=address)
        except StageNotFound:
            raise BadParams(f"dvc.yaml has no stage {address} with the run's params.") from None

    def expand(self, entry: LockEntry) -> dict[str, Any]:
        """The whole `dvc.lock` entry."""
        from dvc.stage.serialize import to_single_stage_lockfile

        stage = self.stage(entry.stage)
        self._fill(stage.outs, entry.outs)
        for dep in stage.deps:
            if is_params(dep):
                dep.save()
        self._fill([dep for dep in stage.deps if not is_params(dep)], entry.deps)
        return plain(to_single_stage_lockfile(stage))

    def write_lock(self, entries: dict[str, dict[str, Any]]) -> None:
        """Write `dvc.lock`."""
        self.repo._reset()  # what was read before the file changed
        (self.folder / "dvc.lock").write_text(lock_text(entries))

    def upload(self, source: Path) -> tuple[str, int, int | None]:
        """Send a file or folder into the remote, past the workspace: its md5, size and number of files."""
        with service_errors(self.store.url):
            [added] = self.repo.add(
                [str(source.resolve())], out=str(self.folder / "source"), to_remote=True, force=True
            )
        out = added.outs[0]
        return str(out.hash_info.value), int(out.meta.size or 0), out.meta.nfiles

    def download(self, digest: str, target: Path) -> None:
        """Fetch a file or folder by its md5 to a path in the workspace."""
        pointer = self.folder / "download.dvc"
        fetched = self.folder / "download"
        pointer.write_text(yaml.safe_dump({"outs": [{"md5": digest, "hash": "md5", "path": fetched.name}]}))
        [stage] = self.repo.stage.load_all(str(pointer))
        self.pull(stage.outs)
        target.parent.mkdir(parents=True, exist_ok=True)
        fetched.rename(target)
        pointer.unlink()

    def pull(self, outs: Iterable[Any]) -> None:
        """Fetch outputs from the remote, every byte checked, and put them into place.

        Raises:
            InputCorrupt: an object's bytes are not what its name says.
            InputMissing: the remote doesn't hold it.
            ServiceDown: the remote does not answer.
        """
        for out in outs:
            pull(self.repo, self.store, out)

    def push(self, stage: Any) -> None:
        """Send the stage's outputs and its run-cache entry into the remote, the outputs first."""
        with service_errors(self.store.url):
            self._send(stage.get_used_objs(), stage.addressing)
            self.repo.stage_cache.push(None)

    def push_outs(self, stage: Any, outs: Iterable[Any]) -> None:
        """Send some of the stage's outputs into the remote."""
        with service_errors(self.store.url):
            for out in outs:
                self._send(out.get_used_objs(), stage.addressing)

    def _send(self, used: dict[Any, Any], address: str) -> None:
        for odb, objects in used.items():
            result = self.repo.cloud.push(objects, odb=odb)
            if result.failed:
                self.store.check()
                raise InputMissing(f"{len(result.failed)} objects of {address} could not be pushed.")

    def _fill(self, stage_files: Iterable[Any], digests: dict[str, list[str | int]]) -> None:
        for stage_file in stage_files:
            if stage_file.def_path not in digests:
                raise BadParams(
                    f"{stage_file.stage.addressing}: the entry does not tell the digest of {stage_file.def_path}."
                )
            set_digest(stage_file, digests[stage_file.def_path])


def set_digest(item: Any, digest_facts: list[str | int]) -> None:
    """Set the digest and size of DVC's dependency or output from a lock entry, without reading any file."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta

    digest, size, *files = digest_facts
    item.hash_info = HashInfo("md5", str(digest))
    item.meta = Meta(isdir=str(digest).endswith(".dir"), size=int(size), nfiles=int(files[0]) if files else None)


def compact(stage: Any, entry: dict[str, Any]) -> LockEntry:
    """The short form of a `dvc.lock` entry."""

    def facts(items: list[dict[str, Any]]) -> dict[str, list[str | int]]:
        return {
            item["path"]: [item["md5"], item["size"], *([item["nfiles"]] if "nfiles" in item else [])] for item in items
        }

    return LockEntry(stage=stage.addressing, deps=facts(entry.get("deps", [])), outs=facts(entry.get("outs", [])))


def is_params(dep: Any) -> bool:
    """Whether a dependency is on keys of params.yaml."""
    from dvc.dependency import ParamsDependency

    return isinstance(dep, ParamsDependency)


def lock_text(entries: dict[str, dict[str, Any]]) -> str:
    """A `dvc.lock`."""
    return to_yaml({"schema": "2.0", "stages": dict(sorted(entries.items()))}, sort_keys=False)


def plain(value: Any) -> Any:
    """Without DVC's own kinds of dictionaries and strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


@contextmanager
def _scratch() -> Iterator[Path]:
    parent = os.environ.get(SCRATCH) or None
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    with ScratchFolder("workspace", parent) as scratch:
        folder = Path(scratch).resolve()
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text(f"[core]\n    no_scm = true\n    site_cache_dir = {folder}/.dvc/site\n")
        if shared := os.environ.get(CACHE):
            _share_objects(folder, Path(shared))
        with contextlib.chdir(folder):  # DVC looks for dvc.yaml in the working directory
            yield folder


def _share_objects(folder: Path, shared: Path) -> None:
    """Let the workspace keep DVC's objects, but not its run cache, in the shared folder.

    DVC puts an object there under its digest and at once, and takes read-only ones, as it leaves them, for whole; so
    `objects.pull` looks at their bytes.
    """
    objects, link = shared.absolute() / "files" / "md5", folder / ".dvc" / "cache" / "files" / "md5"
    try:
        if not shared.exists():
            shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        objects.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadParams(f"{CACHE}: {shared} can't be made ({error.strerror}); name a folder to write to.") from None
    link.parent.mkdir(parents=True)
    link.symlink_to(objects)
