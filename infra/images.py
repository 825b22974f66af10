"""The components' images: `python -m infra.images build | lock | check | sbom`. See docs/images.md."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import typer
import yaml

from clinprompt import cli
from clinprompt.contract.files import IMAGES_LOCK
from clinprompt.errors import BadParams, InputCorrupt, InputMissing, ServiceDown
from clinprompt.files import sha256_bytes, sha256_file, write_text
from clinprompt.schema import read_yaml

ROOT = Path(__file__).parents[1]
TARGETS = ("data", "vision", "registry")
LOCK = Path(IMAGES_LOCK)
DOCKERFILE = "infra/Dockerfile"
ENGINES = ("podman", "docker")

_HEAD = """\
# The images that the components run in (component.yaml: image). `make images` builds them and writes this file; a
# registry of your own goes into the references, as in registry.example.org/team/clinprompt-data.
# digest: of the image, which a runner starts. environment: of its recipe, without the code, which a stage depends on.
"""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIP_LOCATIONS = ("index-url", "extra-index-url", "find-links")
_LENT = "/build/lent"  # /build is a file system of each step's own: no image keeps a trace


@dataclass(frozen=True)
class Engine:
    """The client of a container engine, podman or docker."""

    name: str

    def run(self, *arguments: str) -> None:
        """Run a command, its output passed through.

        Raises:
            ServiceDown: the engine says no; what it said stands above.
        """
        try:
            completed = subprocess.run([self.name, *arguments], cwd=ROOT, env=self._environment(), check=False)
        except FileNotFoundError:
            raise InputMissing(_NO_ENGINE.format(name=self.name)) from None
        if completed.returncode:
            raise ServiceDown(f"`{self.name} {arguments[0]}` failed ({completed.returncode}); see its output above.")

    def inspect(self, image: str) -> dict[str, Any] | None:
        """What the engine knows about an image, or None when it has none of that name."""
        command = [self.name, "image", "inspect", image]
        try:
            completed = subprocess.run(command, capture_output=True, text=True, env=self._environment(), check=False)
        except FileNotFoundError:
            raise InputMissing(_NO_ENGINE.format(name=self.name)) from None
        if completed.returncode == 0:
            return dict(json.loads(completed.stdout)[0])
        if "no such image" in completed.stderr.lower() or "image not known" in completed.stderr.lower():
            return None
        raise ServiceDown(f"{self.name} does not answer: {' '.join(completed.stderr.split())}")

    def _environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_BUILDKIT": "1"}


_NO_ENGINE = "{name} is not installed; install it, name another with --engine, or run infra/dev/engine.sh up."


def build(engine: Engine, targets: list[str], base: str | None) -> None:
    """Build targets of infra/Dockerfile and tag them with the references of infra/images.lock and the version."""
    with _build_options(engine, base) as options:
        for target in targets:
            engine.run("build", *options, "--target", target, "--tag", _tag(target), ".")


def sbom(engine: Engine, folder: Path, base: str | None) -> None:
    """Write `<target>.cdx.json`, a CycloneDX bill of materials for each image, into a folder."""
    with _build_options(engine, base) as options:
        engine.run("build", *options, "--target", "sbom", "--output", f"type=local,dest={folder.absolute()}", ".")


def lock(engine: Engine) -> dict[str, Any]:
    """Write the digests of the images that the engine has into infra/images.lock, and return what is in it."""
    return _write({target: _entry(target)["reference"] for target in TARGETS}, lambda target: _digest(engine, target))


def forget() -> dict[str, Any]:
    """Write infra/images.lock without images, as for a project that runs its components in no container."""
    return _write({target: _entry(target)["reference"] for target in TARGETS}, lambda target: None)


def environment(target: str) -> str:
    """SHA-256 of what an image's environment is made of: the recipe and the target's pinned packages."""
    recipe = [ROOT / DOCKERFILE, ROOT / "infra" / "install.sh", ROOT / "requirements" / "images" / f"{target}.txt"]
    return sha256_bytes("".join(f"{path.name} {sha256_file(path)}\n" for path in recipe).encode())


def _write(references: dict[str, str], digest: Callable[[str], str | None]) -> dict[str, Any]:
    locked = {
        target: {"reference": reference, "digest": digest(target), "environment": environment(target)}
        for target, reference in references.items()
    }
    write_text(ROOT / LOCK, _HEAD + yaml.safe_dump(locked, sort_keys=False))
    return locked


def check(engine: Engine) -> None:
    """Start each locked image as the runners do, and import its components in it.

    Raises:
        InputMissing: an image was not built or not locked.
        InputCorrupt: the image of that name is not the locked one.
        ServiceDown: a component can't be imported in its image.
    """
    for target in TARGETS:
        actual, locked = _digest(engine, target), _entry(target)["digest"]
        if actual is None or locked is None:
            raise InputMissing(f"{LOCK}: {target}: not built or not locked; run `make images`.")
        if _entry(target)["environment"] != environment(target):
            raise InputCorrupt(f"{LOCK}: {target}: the recipe has changed since it was locked; run `make images`.")
        if actual != locked:
            raise InputCorrupt(f"{LOCK}: {target}: the digest is {locked}, but {_tag(target)} is {actual}; lock again.")
        modules = ["workspace.__main__", *(f"components.{name}.__main__" for name in components_of(target))]
        code = f"import os, {', '.join(modules)}; assert os.getuid() > 0"
        mounts = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--tmpfs", "/var/tmp:mode=1777")  # noqa: S108
        engine.run("run", "--rm", "--network", "none", *mounts, _tag(target), "python", "-c", code)


def components_of(target: str) -> list[str]:
    """The components whose component.yaml names an image."""
    files = sorted((ROOT / "components").glob("*/component.yaml"))
    return [file.parent.name for file in files if read_yaml(file).get("image") == target]


def _entry(target: str) -> dict[str, Any]:
    entry = (read_yaml(ROOT / LOCK) or {}).get(target)
    if not isinstance(entry, dict) or not isinstance(entry.get("reference"), str):
        raise BadParams(f"{LOCK}: {target}: expected {{reference: NAME, digest: null}}, found {entry!r}.")
    reference = entry["reference"]
    if "@" in reference or ":" in reference.rpartition("/")[2]:
        raise BadParams(f"{LOCK}: {target}.reference: expected a name without tag and digest, found {reference!r}.")
    return {"reference": reference, "digest": entry.get("digest"), "environment": entry.get("environment")}


def _version() -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    return match[1] if match else "0"


def _tag(target: str) -> str:
    return f"{_entry(target)['reference']}:{_version()}"


def _digest(engine: Engine, target: str) -> str | None:
    """The digest by which a registry or this engine knows the image; docker gives one only when it was pushed."""
    details = engine.inspect(_tag(target)) or {}
    name = _entry(target)["reference"]
    pushed = [digest for digest in details.get("RepoDigests") or [] if digest.rpartition("@")[0].endswith(name)]
    match = _DIGEST.search(pushed[-1] if pushed else details.get("Digest", ""))
    return match[0] if match else None


@contextmanager
def _build_options(engine: Engine, base: str | None) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        yield [
            *("--file", DOCKERFILE, "--build-arg", f"VERSION={_version()}", "--build-arg", f"REVISION={_revision()}"),
            *(("--build-arg", f"BASE={base}") if base else ()),
            # Podman's own format would lose the health check.
            *(("--format", "docker") if engine.name == "podman" else ()),
            *_pip_options(engine, pip_settings(), Path(folder)),
        ]


def _pip_options(engine: Engine, settings: dict[str, str], folder: Path) -> list[str]:
    """Lend the build this machine's package indexes, folders and certificates; nothing of them stays in an image."""
    options, lines = [], ["[global]"]
    for key in (*_PIP_LOCATIONS, "trusted-host"):
        locations = settings.get(key, "").split()
        for number, location in enumerate(locations):
            if local := _local_folder(location):
                if engine.name != "podman":
                    raise BadParams(f"pip's configuration names {local}, a folder; only podman can lend it.")
                locations[number] = location.replace(str(local), f"{_LENT}{local}", 1)
                options += ["--volume", f"{local}:{_LENT}{local}:ro"]
        if locations:
            lines.append(f"{key} = {' '.join(locations)}")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options += ["--secret", f"id=pip,src={folder / 'pip.conf'}"]
    certificates = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    if certificates and Path(certificates).is_file():
        options += ["--secret", f"id=ca,src={certificates}"]
    return options


def pip_settings() -> dict[str, str]:
    """pip's configuration, its files and variables merged as pip merges them."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    if shutil.which("pip"):
        command = ["pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in sections:
            sections[section][name] = " ".join(str(ast.literal_eval(value)).split())
    return sections["global"] | sections["install"] | sections[":env:"]


def _local_folder(location: str) -> Path | None:
    """The folder to lend for a location; a folder index's pages link to files beside it, so that is the one above."""
    url = urlsplit(location)
    if url.scheme == "file":
        return Path(unquote(url.path)).parent
    return Path(location).absolute() if not url.scheme and Path(location).is_dir() else None


def _revision() -> str:
    """The commit, with "-dirty" where files differ from it, but for the images' lock, which no image holds."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    command = ["git", "diff", "--quiet", "HEAD", "--", ".", f":(exclude){IMAGES_LOCK}"]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode != 0
    return f"{commit.stdout.strip()}{'-dirty' if changed else ''}" if commit.returncode == 0 else "unknown"


app = cli.application()
_Base = Annotated[str | None, typer.Option(help="build on this image instead of the Dockerfile's")]


@app.callback(help=__doc__)
def _choose_engine(
    context: typer.Context,
    engine: Annotated[
        Literal["podman", "docker"] | None,
        typer.Option(help="by default podman where it is installed, otherwise docker"),
    ] = None,
) -> None:
    context.obj = Engine(engine or next(filter(shutil.which, ENGINES), ENGINES[0]))


@app.command("build", help="build and tag the images")
def _build(
    context: typer.Context,
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="TARGET", help=f"of {', '.join(TARGETS)}; by default all")
    ] = None,
    base: _Base = None,
) -> None:
    build(context.obj, targets or list(TARGETS), base)


@app.command("sbom", help="write each image's bill of materials (CycloneDX)")
def _sbom(context: typer.Context, folder: Annotated[Path, typer.Argument()], base: _Base = None) -> None:
    sbom(context.obj, folder, base)


@app.command("lock", help=f"write the images' digests into {LOCK}")
def _lock(
    context: typer.Context,
    without_images: Annotated[
        bool, typer.Option("--without-images", help="only the environments: nothing was built")
    ] = False,
) -> None:
    sys.stdout.write(yaml.safe_dump(forget() if without_images else lock(context.obj), sort_keys=False))


@app.command("check", help="compare the images with the lock, and start each")
def _check(context: typer.Context) -> None:
    check(context.obj)


def main(argv: list[str]) -> int:
    """Run one command; the exit code is 0 or that of the error."""
    return cli.main(app, argv, "python -m infra.images")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
