"""Objects that are not what their names say: named, kept, and mended by the command that the sentence names."""

import re
import stat
from pathlib import Path

import pytest
from small_project import Project

from clinprompt.errors import InputCorrupt, InputMissing
from workspace import __main__ as command
from workspace.releases import publish
from workspace.repo import Workspace


def fetched(project: Project) -> dict[str, bytes]:
    """The files of the release, as a task fetches them."""
    plan = project.plan()
    with Workspace.of(plan, project.store) as workspace:
        workspace.download(plan.digest, Path("data/drawn"))
        return {path.name: path.read_bytes() for path in Path("data/drawn").rglob("*") if path.is_file()}


def flip(path: Path, mode: int) -> None:
    """Change a byte of an object and leave it with a mode."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(mode)


def one_object(folder: Path, listing: bool) -> Path:
    """An object of the release: its listing, or a file's."""
    return min(path for path in (folder / "files" / "md5").glob("??/*") if (path.suffix == ".dir") == listing)


@pytest.mark.parametrize("mode", [0o444, 0o644])
@pytest.mark.parametrize("listing", [False, True])
def test_a_flipped_object_of_a_folder_store_is_corrupt_and_not_deleted(
    project: Project, tmp_path: Path, mode: int, listing: bool
) -> None:
    expected = fetched(project)
    flipped = one_object(Path(project.store.remote), listing)
    flip(flipped, mode)
    with pytest.raises(InputCorrupt, match=f"the object {flipped.parent.name}{flipped.name}") as told:
        fetched(project)
    assert stat.S_IMODE(flipped.stat().st_mode) == mode

    asked = re.search(r"`python -m workspace (discard [^`]*)`", str(told.value))
    assert asked is not None
    assert command.cli.invoke(command.app, asked[1].split(), "python -m workspace")["removed"]
    assert not flipped.exists()
    with pytest.raises(InputMissing):
        fetched(project)
    publish(project.store, "drawn", tmp_path / "r1", "r1")
    assert fetched(project) == expected


@pytest.mark.parametrize("listing", [False, True])
def test_a_flipped_object_of_a_shared_cache_is_fetched_again_whatever_its_mode(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: bool
) -> None:
    monkeypatch.setenv("CLINPROMPT_CACHE", str(tmp_path / "cache"))
    expected = fetched(project)
    kept = one_object(tmp_path / "cache", listing)
    whole = kept.read_bytes()
    flip(kept, stat.S_IMODE(kept.stat().st_mode))
    assert fetched(project) == expected
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("name", ["x", "../../etc", "0" * 31, "0" * 32 + ".x"])
def test_only_an_object_s_name_can_be_discarded(project: Project, name: str) -> None:
    with pytest.raises(command.ClinpromptError, match="is no object's name"):
        command.cli.invoke(command.app, ["discard", name], "python -m workspace")
