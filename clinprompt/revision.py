"""Which revision of the code this is, as git knows it."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT_FROM = "REVISION"  # in an image or a task's workspace, which have no git: the commit that the code is of


@dataclass(frozen=True)
class Revision:
    """A commit's id, with "-dirty" when files differ from it, and the day on which it was made, as "2026-01-31"."""

    commit: str
    date: str


def git_revision(folder: Path = ROOT) -> Revision | None:
    """The commit that is checked out; None outside of git."""
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    date = _git(folder, "show", "--no-patch", "--format=%cs", "HEAD")
    return Revision(commit, date) if commit and date else None


def git_commit(folder: Path = ROOT) -> str | None:
    """The commit alone; where the code is a copy, the one that it was copied from."""
    revision, built_from = git_revision(folder), folder / BUILT_FROM
    if revision is not None:
        return revision.commit
    told = built_from.read_text(encoding="utf-8").strip() if built_from.is_file() else ""
    return told if re.fullmatch("[0-9a-f]{40}(-dirty)?", told) else None


def _git(folder: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, *arguments], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None
