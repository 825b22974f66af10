"""What a change of the code touches: the digests of stages and methods, and the lock that DVC reads them from."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clinprompt.contract.files import SOURCES_LOCK
from clinprompt.data.layouts import KINDS
from clinprompt.errors import BadParams
from clinprompt.sources import closure, digest
from components import parsed
from components.sources import ROOT, check_sources, digest_of, stage_digest, write_sources_lock

PACKAGES = ("clinprompt", "components", "registry", "workspace")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    return tmp_path


def lock_of(project: Path) -> dict[str, dict[str, str]]:
    write_sources_lock(project, project / SOURCES_LOCK)
    found: dict[str, dict[str, str]] = yaml.safe_load((project / SOURCES_LOCK).read_text(encoding="utf-8"))
    return found


def changed(project: Path, file: str, old: str, new: str) -> set[str]:
    """The keys of the lock that an edit of a file changes."""
    before = lock_of(project)
    path = project / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    after = lock_of(project)
    return {f"{kind}.{name}" for kind in before for name in before[kind] if before[kind][name] != after[kind][name]}


def test_a_methods_file_touches_that_method_alone(project: Path) -> None:
    edit = "config: CoOpConfig", "config: CoOpConfig\n    more = 1"
    assert changed(project, "clinprompt/methods/coop.py", *edit) == {"methods.coop"}


def test_what_methods_share_touches_those_that_use_it(project: Path) -> None:
    touched = changed(project, "clinprompt/prompting/sentences.py", "class Sentences", "MORE = 1\n\n\nclass Sentences")
    using = {"methods.maple", "methods.lora", "methods.deft_ad"}
    assert {key for key in touched if key.startswith("methods.")} == using


def test_a_new_method_touches_nothing_else(project: Path) -> None:
    before = lock_of(project)
    shutil.copy(project / "clinprompt/methods/coop.py", project / "clinprompt/methods/mine.py")
    assert lock_of(project)["stages"] == before["stages"]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"""Train', '"""Tune'), ("def fit(", "# A comment, and a line more.\n\n\ndef fit(")],
)
def test_docstrings_and_comments_touch_nothing(project: Path, old: str, new: str) -> None:
    assert changed(project, "clinprompt/training/fit.py", old, new) == set()


def test_what_a_file_imports_counts_also_where_another_file_names_it_as_data(tmp_path: Path) -> None:
    (tmp_path / "clinprompt").mkdir()
    files = {"__init__": "", "a": "READ = 'b.py'\nimport clinprompt.b\n", "b": "import clinprompt.c\n", "c": ""}
    for name, text in files.items():
        (tmp_path / "clinprompt" / f"{name}.py").write_text(text)
    assert list(closure(["clinprompt.a"], tmp_path)) == [f"clinprompt/{name}.py" for name in files]


def test_the_drawing_of_the_phantom_touches_its_layout_alone(project: Path) -> None:
    phantom = [KINDS["phantom"]]
    before = digest_of(phantom, project)
    assert (
        changed(project, "clinprompt/demo/drawing.py", "import numpy as np", "import numpy as np\n\nMORE = 1") == set()
    )
    assert digest_of(phantom, project) != before


@pytest.mark.parametrize("file", ["clinprompt/files.py", "clinprompt/errors.py", "components/runner.py"])
def test_what_every_stage_runs_touches_every_stage(project: Path, file: str) -> None:
    text = (project / file).read_text(encoding="utf-8")
    touched = changed(project, file, text, text + "\n\nMORE = 1\n")
    assert touched >= {
        f"stages.{name}" for name in ("ingest", "validate", "describe", "cache", "tune", "gate", "promote")
    }


def test_the_lock_of_the_project_is_that_of_its_code() -> None:
    write = lock_of_text(ROOT)
    assert (ROOT / SOURCES_LOCK).read_text(encoding="utf-8") == write, "run: dvc repro lock"


def lock_of_text(root: Path) -> str:
    from components.sources import sources_lock

    return sources_lock(root)


def test_a_stage_whose_sources_differ_from_the_lock_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_sources("tune", ["coop"])  # without a lock, DVC is not what runs the stage
    shutil.copytree(ROOT / "infra", tmp_path / "infra", ignore=lambda folder, names: set(names) - {"sources.lock"})
    lock = tmp_path / SOURCES_LOCK
    lock.write_text(lock_of_text(ROOT), encoding="utf-8")
    check_sources("tune", ["coop"])
    lock.write_text(lock.read_text(encoding="utf-8").replace("  tune: ", "  tune: 0"), encoding="utf-8")
    check_sources("evaluate", ["coop"])
    with pytest.raises(BadParams, match=r"stages\.tune: .*run `dvc repro lock`"):
        check_sources("tune", ["coop"])


def test_what_one_process_has_parsed_the_next_does_not_and_a_damaged_file_of_it_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()

    def attach(*statements: str) -> str:
        """The digest of a small stage, by a process that first takes over what is kept."""
        lines = ["from pathlib import Path", "from components import parsed, sources"]
        lines += [f"root = Path({str(tmp_path)!r})", "parsed.recall(root)", "print(sources.stage_digest('attach'))"]
        command = [sys.executable, "-c", "\n".join([*lines, *statements])]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    expected = attach("parsed.keep(root)")
    assert expected == stage_digest("attach")
    kept = tmp_path / parsed.PARSED
    head, text = kept.read_text(encoding="utf-8").splitlines()
    wrong = json.dumps({key: [imports, texts, "0" * 64] for key, (imports, texts, _) in json.loads(text).items()})
    kept.write_text(f"{head}\n{wrong}\n", encoding="utf-8")
    assert attach() == expected
    kept.write_text(f"{head.split()[0]} {hashlib.sha256(wrong.encode()).hexdigest()}\n{wrong}\n", encoding="utf-8")
    assert attach() != expected  # as nothing was parsed


def test_values_count_in_yaml_files_and_bytes_in_others(tmp_path: Path) -> None:
    table, text = tmp_path / "table.yaml", tmp_path / "words.txt"
    table.write_text("a: 1 # one\n")
    text.write_text("a\n")
    before = digest(table), digest(text)
    table.write_text("# a table\na:   1\n")
    assert digest(table) == before[0]
    table.write_text("a: 2\n")
    text.write_text("a \n")
    assert digest(table) != before[0]
    assert digest(text) != before[1]
