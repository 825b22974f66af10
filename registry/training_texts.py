"""The texts that a training ran from, kept beside the payload: the params, DVC's lock, the images' lock, the knowledge.

They are small and hold no secrets, which stand in variables alone. Each has its digest in the lineage.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clinprompt.contract.files import IMAGES_LOCK
from clinprompt.errors import InputCorrupt
from clinprompt.files import sha256_bytes, sha256_file

PROJECT = "project"  # of a version's record: what lies below it has its place in the project
KNOWLEDGE = "descriptions.parquet"
LOCK = "dvc.lock"
_FACTS = {"params.yaml": "params_file_digest", LOCK: "dvc_lock_digest", IMAGES_LOCK: "image_lock_digest"}


@dataclass(frozen=True)
class TrainingTexts:
    """Texts by their place in a version's record, read once, so that what is kept is what was hashed."""

    files: dict[str, bytes]
    facts: dict[str, str]

    @classmethod
    def read(cls, dataset: str, params: Path, knowledge: Path | None) -> "TrainingTexts":
        """The texts of a project, as far as they are there.

        Args:
            params: its params.yaml, whatever it is called; beside it lies the rest.
            knowledge: the table of descriptions, of a model that was taught by it.
        """
        places = {"params.yaml": params} | {name: params.parent / name for name in (LOCK, IMAGES_LOCK)}
        found = {name: path.read_bytes() for name, path in places.items() if path.is_file()}
        facts = {_FACTS[name]: sha256_bytes(content) for name, content in found.items()}
        if release := _release(dataset, found.get(LOCK)):
            facts["release_digest"] = release
        files = {f"{PROJECT}/{name}": content for name, content in found.items()}
        if knowledge is not None:
            from clinprompt.knowledge.rejections import rejected_share  # pandas takes a second

            files[KNOWLEDGE] = knowledge.read_bytes()
            facts["knowledge_digest"] = sha256_bytes(files[KNOWLEDGE])
            if (share := rejected_share(knowledge)) is not None:
                facts["knowledge_rejected_share"] = str(share)
        return cls(files, facts)

    def write(self, record: Path) -> None:
        """Write them below a version's record."""
        for name, content in self.files.items():
            path = record / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def restore(where: str, facts: dict[str, str], record: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Put a version's texts into a project's folder, at their places; which were, and which the version lacks.

    Raises:
        InputCorrupt: one has another digest than the lineage names.
    """
    restored, lacking = [], []
    for name, fact in _FACTS.items():
        kept = record / PROJECT / name
        if fact not in facts:
            lacking.append(name)
            continue
        _check(where, kept, facts[fact])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept, folder / name)
        restored.append(name)
    return restored, lacking


def restore_knowledge(where: str, facts: dict[str, str], record: Path, folder: Path) -> bool:
    """Put a version's table of descriptions into a folder; whether it keeps one.

    Raises:
        InputCorrupt: it has another digest than the lineage names.
    """
    if not (record / KNOWLEDGE).is_file():
        return False
    _check(where, record / KNOWLEDGE, facts.get("knowledge_digest"))
    shutil.copyfile(record / KNOWLEDGE, folder / KNOWLEDGE)
    return True


def _check(where: str, path: Path, digest: str | None) -> None:
    if not path.is_file() or sha256_file(path) != digest:
        raise InputCorrupt(f"{where} does not record the {path.name} that its lineage names: don't use this model.")


def _release(dataset: str, lock: bytes | None) -> str | None:
    """DVC's digest of the dataset's files, by which the store knows a release, as the lock tells it."""
    try:
        value: Any = yaml.safe_load(lock or b"")
        outs = value["stages"][f"ingest@{dataset}"]["outs"]
        return next(str(out["md5"]) for out in outs if out["path"] == f"data/{dataset}")
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, StopIteration):
        return None
