"""Make the workspace of a version's training again, from what its lineage names, and check what it names."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import atomic, check_new, read_json, sha256_bytes, sha256_file, to_json
from registry import training_texts
from registry.chosen import chosen
from registry.consumer import Champion
from registry.lineage import LOCK, ROOT
from registry.model_folder import PAYLOAD, RECORD
from registry.package import DESCRIPTIONS
from registry.provenance import origin


def reproduce(name: str, folder: Path, which: int | str | None = None, *, project: Path = ROOT) -> dict[str, Any]:
    """Check out the code that a version was promoted by, hold it against the version's digests, and restore the rest.

    params.yaml, dvc.lock and the images' lock are put at their places, as the version records them. Its decision,
    lineage and knowledge lie in the folder's `reproduction/` afterwards. The data are not there: `dvc.lock` names them
    by their digests.

    Args:
        which: a version's number or an alias; by default the champion.
        project: a git clone that has the commit.

    Returns:
        name, version, folder, commit, checked (files of the commit whose digests are those of the lineage), restored
        and not_recorded (what a version of an earlier release lacks).

    Raises:
        BadParams: the folder exists or has no name, or `project` is no clone that has the commit.
        InputMissing: the version records no commit, or one with changes that were never committed; or nothing can be
            made at the folder.
        InputCorrupt: a file of the commit, or one that the version records, is not the one that the lineage names.
    """
    check_new(folder)
    registered = Champion(chosen(name, which))
    facts, model = origin(registered), registered.model_folder
    commit, where = facts.get("git_commit"), f"Version {registered.version} of {name!r}"
    if commit is None or commit.endswith("-dirty"):
        state = "no git commit" if commit is None else f"the commit {commit}, whose changes were never committed"
        raise InputMissing(f"{where} records {state}: the code that trained it can't be had again.")
    _check_params(where, facts, model)
    with atomic(folder.resolve()) as partial:
        _clone(project, commit, partial)
        checked = _checked(where, facts, partial)
        kept = partial / "reproduction"
        kept.mkdir()
        restored, lacking = training_texts.restore(where, facts, model / RECORD, partial)
        for source in (f"{RECORD}/decision.json", f"{RECORD}/lineage.json", f"{PAYLOAD}/{DESCRIPTIONS}"):
            if (model / source).is_file():
                shutil.copyfile(model / source, kept / Path(source).name)
                restored.append(f"{kept.name}/{Path(source).name}")
        if training_texts.restore_knowledge(where, facts, model / RECORD, kept):
            restored.append(f"{kept.name}/{training_texts.KNOWLEDGE}")
        elif "knowledge_digest" in facts:
            lacking.append(training_texts.KNOWLEDGE)
    return {
        "name": name,
        "version": registered.version,
        "folder": str(folder),
        "commit": commit,
        "checked": checked,
        "restored": restored,
        "not_recorded": lacking,
    }


def _check_params(where: str, facts: dict[str, str], model: Path) -> None:
    """The method's knobs and the gate's, from the version's own files, against the digest of both."""
    gate = read_json(model / RECORD / "decision.json").get("params")
    method = read_json(model / PAYLOAD / "model.json").get("config")
    if sha256_bytes(to_json({"method": method, "gate": gate}).encode()) != facts.get("params_digest"):
        raise InputCorrupt(f"{where} does not record the params that its lineage names: don't use this model.")


def _clone(project: Path, commit: str, folder: Path) -> None:
    git = shutil.which("git")
    if git is None:
        raise BadParams("git is not installed: the code can't be checked out.")
    for arguments in (
        ["clone", "--quiet", "--no-checkout", "--no-hardlinks", str(project), str(folder)],
        ["-C", str(folder), "checkout", "--quiet", "--detach", commit],
    ):
        done = subprocess.run([git, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise BadParams(f"{project} is no git clone that has the commit {commit}; run this in one that has it.")


def _checked(where: str, facts: dict[str, str], folder: Path) -> list[str]:
    names = {
        "requirements_digest": LOCK.relative_to(ROOT).as_posix(),
        "card_digest": f"datasets/{facts['dataset']}.yaml",
    }
    checked = []
    for fact, file in names.items():
        if fact in facts:
            path = folder / file
            if not path.is_file() or sha256_file(path) != facts[fact]:
                raise InputCorrupt(f"{where} was made with another {file} than its commit has; look at both.")
            checked.append(file)
    return checked
