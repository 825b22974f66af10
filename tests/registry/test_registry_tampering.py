"""A registered model whose files in the artifact store were changed: refused before any of it runs."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabricate import Run

import registry
from clinprompt.errors import InputCorrupt, InputMissing
from registry import tracking
from registry.__main__ import main
from registry.model_folder import FILES_TAG, LEFT_BY_MLFLOW, digests_tag, verify_model

RUNS = "\nraise SystemExit('this ran')\n"


@pytest.fixture
def run(promoted: Run, fresh_copy: Callable[[Run], Run]) -> Run:
    """A project whose first model is in production."""
    return fresh_copy(promoted)


@pytest.fixture
def stored(run: Run) -> Path:
    """The MLflow model's folder in the artifact store, as it was registered."""
    folder = next(run.root.glob("mlartifacts/models/*/artifacts"))
    for name in LEFT_BY_MLFLOW:  # by a test that loads the model without this repository
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        (folder / name).unlink(missing_ok=True)
    return folder


TAMPERINGS: dict[str, tuple[str, str]] = {
    "a changed weight": ("artifacts/payload/head.safetensors", "was changed after registration"),
    "changed decoding": ("artifacts/payload/code/data/codecs/__init__.py", "was changed after registration"),
    "a changed manifest": ("artifacts/payload/manifest.json", "does not have the digest"),
    "a file too many in the payload": ("artifacts/payload/sitecustomize.py", "is not in the payload's manifest"),
    "a file too many": ("torch.py", "was not registered with the model"),
    "another script": ("model_script.py", "was changed after registration"),
    "another MLmodel": ("MLmodel", "was changed after registration"),
    "another decision": ("artifacts/record/decision.json", "was changed after registration"),
    "another lineage": ("artifacts/record/lineage.json", "was changed after registration"),
    "another model card": ("artifacts/record/model_card.md", "was changed after registration"),
    "other params": ("artifacts/record/project/params.yaml", "was changed after registration"),
    "other data of the model card": ("artifacts/record/model_card.json", "was changed after registration"),
    "other prediction sets": ("artifacts/payload/calibration.json", "was changed after registration"),
    "other requirements": ("requirements.txt", "was changed after registration"),
    "another environment": ("conda.yaml", "was changed after registration"),
    "another Python": ("python_env.yaml", "was changed after registration"),
    "another example": ("input_example.json", "was changed after registration"),
    "another served example": ("serving_input_example.json", "was changed after registration"),
}


@pytest.mark.parametrize("what", sorted(TAMPERINGS))
def test_a_tampered_model_is_refused_before_any_of_it_runs(stored: Path, what: str) -> None:
    name, message = TAMPERINGS[what]
    with (stored / name).open("a") as file:
        file.write(RUNS)
    with pytest.raises(InputCorrupt, match=message):
        registry.load("tiny")


def test_each_file_of_the_folder_is_among_the_tampered_ones(stored: Path) -> None:
    beside = {path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()}
    beside = {name for name in beside if not name.startswith("artifacts/payload/")}
    assert beside <= {name for name, _ in TAMPERINGS.values()}


def test_no_file_of_the_folder_can_be_changed_emptied_replaced_by_a_link_or_taken_away(
    stored: Path, tmp_path: Path
) -> None:
    tags = tracking.connect().get_model_version("tiny", "1").tags

    def verify() -> None:
        verify_model(stored, tags["payload_digest"], tags[FILES_TAG])

    verify()
    names = sorted(path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file())
    assert {"MLmodel", "artifacts/payload/manifest.json", "artifacts/record/decision.json"} < set(names)
    twin = tmp_path / "twin"
    for name in names:
        path, content = stored / name, (stored / name).read_bytes()
        for other in {content + b" ", b""} - {content}:
            path.write_bytes(other)
            with pytest.raises(InputCorrupt):
                verify()
        path.unlink()
        with pytest.raises(InputMissing):
            verify()
        twin.write_bytes(content)
        path.symlink_to(twin)
        with pytest.raises(InputCorrupt):
            verify()
        path.unlink()
        path.write_bytes(content)
    verify()


@pytest.mark.parametrize("name", ["artifacts/payload/prompts.safetensors", "requirements.txt", "model_script.py"])
def test_a_missing_file_is_named(stored: Path, name: str) -> None:
    (stored / name).unlink()
    with pytest.raises(InputMissing, match=f"{Path(name).name} does not exist"):
        registry.load("tiny")


def change(stored: Path, where: str, value: Any) -> None:
    """Set a key of MLmodel, as "flavors.python_function.data", and record the new digest as if it belonged there."""
    content = yaml.safe_load((stored / "MLmodel").read_text())
    part, *path = content, *where.split(".")
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    (stored / "MLmodel").write_text(yaml.safe_dump(content))
    record(stored)


def record(stored: Path) -> None:
    """Give the version the digests of the files as they are now."""
    tracking.connect().set_model_version_tag("tiny", "1", FILES_TAG, digests_tag(stored))


FLAVOR = "flavors.python_function"
CHANGES = [
    (f"{FLAVOR}.loader_module", "evil"),
    (f"{FLAVOR}.model_code_path", "evil.py"),
    (f"{FLAVOR}.code", "x"),
    (f"{FLAVOR}.data", "artifacts/record"),
    (f"{FLAVOR}.python_model", "python_model.pkl"),
    (f"{FLAVOR}.model_config", {"device": "x"}),
    (f"{FLAVOR}.predict_fn", "__class__"),
    (f"{FLAVOR}.streamable", True),
    (f"{FLAVOR}.artifacts.payload.path", "artifacts/record"),
    (f"{FLAVOR}.artifacts.more", {"path": "artifacts/record", "uri": "x"}),
    ("flavors.sklearn", {"pickled_model": "model.pkl"}),
    ("saved_input_example_info.artifact_path", "../../x.json"),
    ("metadata", {"a": "b"}),
]


@pytest.mark.parametrize(("where", "value"), CHANGES)
def test_a_model_file_that_would_run_other_code_is_refused(stored: Path, where: str, value: object) -> None:
    change(stored, where, value)
    with pytest.raises(InputCorrupt, match="MLmodel does not load the registered script"):
        registry.load("tiny")


def test_another_folder_with_another_script_does_not_run(stored: Path) -> None:
    evil = stored / "artifacts" / "record"
    (evil / "model_script.py").write_text(RUNS)
    content = yaml.safe_load((stored / "MLmodel").read_text())
    content["flavors"]["python_function"]["data"] = "artifacts/record"
    (stored / "MLmodel").write_text(yaml.safe_dump(content))
    with pytest.raises(InputCorrupt):
        registry.load("tiny")


@pytest.mark.parametrize("text", ["", "- a list", "flavors: [", "a: " * 3000, "\x00", "1", "[" * 5000])
@pytest.mark.parametrize("known", [False, True])
def test_an_mlmodel_that_is_none_ends_in_a_sentence(
    stored: Path, text: str, known: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (stored / "MLmodel").write_text(text)
    if known:
        record(stored)
    assert main(["load", "tiny"]) == 67
    assert "don't use this model" in capsys.readouterr().err


def test_a_version_without_the_digests_is_refused_and_can_be_replaced(run: Run) -> None:
    from fabricate import promote

    client = tracking.connect()
    for name in ("tiny", "tiny-candidate"):
        client.delete_model_version_tag(name, "1", FILES_TAG)
    with pytest.raises(InputCorrupt, match="by an earlier release of it"):
        registry.load("tiny")
    client.delete_registered_model_alias("tiny", "champion")
    client.delete_tag(client.get_model_version("tiny", "1").run_id, FILES_TAG)
    assert promote(run) == 0
    found = registry.champion("tiny")
    assert found is not None
    assert found.version == 2
    assert found.model_folder.is_dir()


def test_plain_mlflow_refuses_a_tampered_payload_too(stored: Path) -> None:
    import mlflow

    with (stored / "artifacts" / "payload" / "head.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="was changed after the model was registered"):
        mlflow.pyfunc.load_model(str(stored))


def test_compiled_code_beside_the_script_is_never_run(stored: Path, tmp_path: Path) -> None:
    import py_compile

    source = tmp_path / "evil.py"
    source.write_text("raise SystemExit('this ran')")
    target = importlib.util.cache_from_source(str(stored / "model_script.py"))
    py_compile.compile(str(source), target, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert registry.load("tiny") is not None


def test_plain_mlflow_leaves_the_stored_payload_as_it_is_and_the_model_loadable(stored: Path) -> None:
    import mlflow

    payload = stored / "artifacts" / "payload"
    before = {path: path.read_bytes() for path in payload.rglob("*") if path.is_file()}
    tracking.connect()
    mlflow.pyfunc.load_model("models:/tiny@champion")
    assert {path: path.read_bytes() for path in payload.rglob("*") if path.is_file()} == before
    assert (stored / "registered_model_meta").is_file()
    assert registry.load("tiny") is not None


def test_the_digests_are_those_of_the_files_before_they_were_stored(
    finished: Run, fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fabricate import promote
    from mlflow import MlflowClient

    run, log = fresh_copy(finished), MlflowClient.log_model_artifacts

    def evil_store(self: MlflowClient, model_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        log(self, model_id, local_dir, artifact_path)
        [requirements] = run.root.glob("mlartifacts/models/*/artifacts/requirements.txt")
        requirements.write_text("evil")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", evil_store)
    assert promote(run) == 67
    assert registry.champion("tiny") is None


def test_the_digests_are_a_tag_that_people_need_not_read(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "tiny", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["versions"][0]["lineage"]
    assert set(json.loads(shown[FILES_TAG])) > {"MLmodel", "requirements.txt", "artifacts/record/decision.json"}
    assert main(["show", "tiny"]) == 0
    assert FILES_TAG not in capsys.readouterr().out


def test_a_tag_that_should_be_a_number_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from fabricate import promote

    client = tracking.connect()
    client.set_model_version_tag("tiny", "1", "candidate_version", "the first")
    assert promote(run) == 67
    for key, value in (("quarantined", "true"), ("quarantine_champion", "x")):
        client.set_model_version_tag("tiny", "1", key, value)
    assert main(["rollback", "tiny", "--reason", "a test"]) == 67
    told = capsys.readouterr().err
    assert "'candidate_version' of version 1 of 'tiny' is 'the first', and should be the number of a version" in told
    assert "'quarantine_champion' of version 1 of 'tiny' is 'x'" in told
