"""`python -m infra.images`, with an engine that only notes how it is called."""

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest
import yaml

from infra import images

_ENGINE = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
for option in sys.argv:
    if option.startswith("id=pip,src="):
        open({log!r} + ".pip", "w").write(open(option.removeprefix("id=pip,src=")).read())
if sys.argv[1:3] == ["image", "inspect"]:
    known = json.loads(open({images!r}).read())
    if sys.argv[3] not in known:
        sys.stderr.write("Error: " + sys.argv[3] + ": image not known\\n")
        sys.exit(125)
    print(json.dumps([known[sys.argv[3]]]))
sys.exit(int(os.environ.get("FAKE_ENGINE_STATUS", "0")))
"""


# What the command reads of a project.
READ = ["pyproject.toml", "components/*/*.yaml", "infra/Dockerfile", "infra/install.sh", "infra/images.lock"]
READ += ["requirements/images/*.txt"]


class FakeEngine:
    """What the fake engine was called with, and the images that it claims to have."""

    def __init__(self, folder: Path) -> None:
        self.log, self.images = folder / "calls", folder / "images.json"
        self.has({})

    def has(self, known: dict[str, dict[str, object]]) -> None:
        self.images.write_text(json.dumps(known))

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def pip_conf(self) -> str:
        return self.log.with_name("calls.pip").read_text()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """podman and docker on the path, neither of them real."""
    fake = FakeEngine(tmp_path)
    program = _ENGINE.format(python=sys.executable, log=str(fake.log), images=str(fake.images))
    (tmp_path / "bin").mkdir()
    for name in images.ENGINES:
        file = tmp_path / "bin" / name
        file.write_text(program)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(images, "pip_settings", dict)
    return fake


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of which only what the command reads is there; its lock may be written."""
    copy = tmp_path / "project"
    for file in (path.relative_to(root) for glob in READ for path in root.glob(glob)):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_text((root / file).read_text())
    monkeypatch.setattr(images, "ROOT", copy)
    return copy


def write_lock(project: Path, **digests: str | None) -> None:
    entries = {t: entry(f"clinprompt-{t}", digests.get(t), images.environment(t)) for t in images.TARGETS}
    (project / images.LOCK).write_text(yaml.safe_dump(entries))


def entry(reference: str, digest: str | None, environment: str | None) -> dict[str, str | None]:
    return {"reference": reference, "digest": digest, "environment": environment}


def sha(digit: str) -> str:
    return "sha256:" + digit * 64


def test_build_builds_each_target_and_tags_it_with_the_version(engine: FakeEngine) -> None:
    assert images.main(["--engine", "podman", "build", "--base", "base:1"]) == 0
    calls = engine.calls()
    assert [call[call.index("--target") + 1] for call in calls] == list(images.TARGETS)
    for call, target in zip(calls, images.TARGETS, strict=True):
        assert call[:2] == ["podman", "build"]
        assert re.fullmatch(rf"clinprompt-{target}:\d+\.\d+\.\d+", call[call.index("--tag") + 1])
        assert "BASE=base:1" in call
        assert call[call.index("--format") + 1] == "docker"  # or podman drops the health check


def test_docker_builds_one_target_on_the_pinned_base(engine: FakeEngine) -> None:
    assert images.main(["--engine", "docker", "build", "data"]) == 0
    (call,) = engine.calls()
    assert call[0] == "docker"
    assert "--format" not in call
    assert not any(part.startswith("BASE=") for part in call)


def test_a_folder_of_wheels_is_lent_to_the_build_and_named_by_where_it_is_there(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, wheels = tmp_path / "mirror", tmp_path / "mirror-wheels"
    wheels.mkdir()
    (mirror / "simple").mkdir(parents=True)
    settings = {
        "index-url": "https://user:word@index.example.org/simple",
        "extra-index-url": f"file://{mirror}/simple",
        "find-links": str(wheels),
    }
    monkeypatch.setattr(images, "pip_settings", lambda: settings)
    assert images.main(["--engine", "podman", "build", "data"]) == 0
    (call,) = engine.calls()
    volumes = [call[i + 1] for i, part in enumerate(call) if part == "--volume"]
    assert volumes == [f"{folder}:/build/lent{folder}:ro" for folder in (mirror, wheels)]
    assert engine.pip_conf().splitlines() == [
        "[global]",
        "index-url = https://user:word@index.example.org/simple",
        f"extra-index-url = file:///build/lent{mirror}/simple",
        f"find-links = /build/lent{wheels}",
    ]
    assert not any("word@" in part for part in call)


def test_docker_refuses_a_folder_of_wheels(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images, "pip_settings", lambda: {"find-links": str(tmp_path)})
    assert images.main(["--engine", "docker", "build", "data"]) == 64
    assert engine.calls() == []
    assert f"pip's configuration names {tmp_path}" in capsys.readouterr().err


def test_a_failed_build_is_one_sentence(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_ENGINE_STATUS", "3")
    assert images.main(["--engine", "podman", "build"]) == 69
    assert len(engine.calls()) == 1
    assert capsys.readouterr().err == "`podman build` failed (3); see its output above.\n"


def test_lock_takes_the_digests_and_keeps_the_references(engine: FakeEngine, project: Path) -> None:
    name = "registry.example.org:5000/team/clinprompt-vision"
    entries = {t: {"reference": f"clinprompt-{t}", "digest": None} for t in images.TARGETS}
    entries["vision"]["reference"] = name
    (project / images.LOCK).write_text(yaml.safe_dump(entries))
    engine.has(
        {
            "clinprompt-data:0.1.0": {"Digest": sha("1"), "RepoDigests": [f"localhost/clinprompt-data@{sha('1')}"]},
            f"{name}:0.1.0": {"RepoDigests": [f"elsewhere/clinprompt-other@{sha('2')}", f"{name}@{sha('3')}"]},
            "clinprompt-registry:0.1.0": {"Id": sha("4"), "RepoDigests": []},
        }
    )
    assert images.main(["--engine", "podman", "lock"]) == 0
    text = (project / images.LOCK).read_text()
    assert yaml.safe_load(text) == {
        "data": entry("clinprompt-data", sha("1"), images.environment("data")),
        "vision": entry(name, sha("3"), images.environment("vision")),
        "registry": entry("clinprompt-registry", None, images.environment("registry")),
    }
    assert text.startswith("# The images that the components run in")
    images.main(["--engine", "podman", "lock"])
    assert (project / images.LOCK).read_text() == text


@pytest.mark.parametrize("reference", ["clinprompt-data:1", "clinprompt-data@sha256:00"])
def test_a_reference_with_a_tag_is_refused(
    reference: str, engine: FakeEngine, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = {t: {"reference": reference, "digest": None} for t in images.TARGETS}
    (project / images.LOCK).write_text(yaml.safe_dump(entries))
    assert images.main(["--engine", "podman", "build"]) == 64
    assert f"infra/images.lock: data.reference: expected a name without tag and digest, found '{reference}'" in (
        capsys.readouterr().err
    )


def test_check_starts_each_image_as_the_runners_do(engine: FakeEngine, project: Path) -> None:
    write_lock(project, data=sha("1"), vision=sha("2"), registry=sha("3"))
    engine.has({f"clinprompt-{t}:0.1.0": {"Digest": sha(str(n))} for n, t in enumerate(images.TARGETS, 1)})
    assert images.main(["--engine", "podman", "check"]) == 0
    runs = [call for call in engine.calls() if call[1] == "run"]
    assert len(runs) == 3
    for call in runs:
        assert "--read-only" in call
        assert call[call.index("--network") + 1] == "none"
    assert "components.tune.__main__" in runs[1][-1]
    assert "components.tune.__main__" not in runs[0][-1]


def test_check_names_the_image_that_is_not_the_locked_one(
    engine: FakeEngine, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lock(project, data=sha("1"), vision=sha("2"), registry=sha("3"))
    engine.has({f"clinprompt-{t}:0.1.0": {"Digest": sha("1")} for t in images.TARGETS})
    assert images.main(["--engine", "podman", "check"]) == 67
    assert "infra/images.lock: vision: the digest is" in capsys.readouterr().err
    engine.has({})
    assert images.main(["--engine", "podman", "check"]) == 66
    assert "infra/images.lock: data: not built or not locked" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["infra/Dockerfile", "infra/install.sh", "requirements/images/vision.txt"])
def test_check_refuses_an_image_of_another_recipe(
    file: str, engine: FakeEngine, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lock(project, data=sha("1"), vision=sha("2"), registry=sha("3"))
    engine.has({f"clinprompt-{t}:0.1.0": {"Digest": sha(str(n))} for n, t in enumerate(images.TARGETS, 1)})
    (project / file).write_text((project / file).read_text() + "# changed\n")
    assert images.main(["--engine", "podman", "check"]) == 67
    target = "vision" if "vision" in file else "data"
    assert f"infra/images.lock: {target}: the recipe has changed" in capsys.readouterr().err
    assert images.main(["--engine", "podman", "lock"]) == 0
    assert images.main(["--engine", "podman", "check"]) == 0


def test_an_environment_is_that_of_its_own_image(project: Path) -> None:
    before = {target: images.environment(target) for target in images.TARGETS}
    packages = project / "requirements" / "images" / "data.txt"
    packages.write_text(packages.read_text() + "# changed\n")
    after = {target: images.environment(target) for target in images.TARGETS}
    assert {target for target in images.TARGETS if after[target] != before[target]} == {"data"}


def test_without_images_a_lock_has_environments_only(engine: FakeEngine, project: Path) -> None:
    write_lock(project, data=sha("1"))
    assert images.main(["--engine", "podman", "lock", "--without-images"]) == 0
    assert engine.calls() == []
    locked = yaml.safe_load((project / images.LOCK).read_text())
    assert locked == {t: entry(f"clinprompt-{t}", None, images.environment(t)) for t in images.TARGETS}


def test_pip_settings_merge_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\nindex-url = https://one.example.org/simple\nfind-links =\n    /a\n    /b\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(conf))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://two.example.org/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    settings = images.pip_settings()
    if not settings:
        pytest.skip("there is no pip here")
    assert settings["index-url"] == "https://one.example.org/simple"
    assert settings["extra-index-url"] == "https://two.example.org/simple"
    assert settings["find-links"] == "/a /b"
