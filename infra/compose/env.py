"""Make, complete and check the env file of infra/compose.yaml: `python3 infra/compose/env.py new | pin | check`.

new    writes .env with strong random secrets, readable by you alone; never overwrites one
pin    asks the container engine for the digests of the images, and writes them into .env
check  ends with 64 and says why when a value is missing, weak or not pinned, or when others can read the file
"""

import argparse
import base64
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

# Of clinprompt/contract/exit_codes.py; this file runs with nothing but Python, before anything is installed.
BAD_PARAMS, INPUT_MISSING, SERVICE_DOWN = 64, 66, 69
HERE = Path(__file__).resolve().parent
EXAMPLE = HERE / "env.example"
COMPOSE = HERE.parent / "compose.yaml"
FERNET = "AIRFLOW_FERNET_KEY"
SIGNING, VERIFICATION = "SIGNING_KEY", "VERIFICATION_KEY"
LENGTHS = {"AIRFLOW_JWT_SECRET": 96, "STORE_ACCESS_KEY": 20, "PROMOTER_ACCESS_KEY": 20, "MLFLOW_ACCESS_KEY": 20}
OWN_IMAGES = {
    "AIRFLOW_IMAGE": "clinprompt-airflow",
    "WORKER_IMAGE": "clinprompt-worker",
    "MLFLOW_IMAGE": "clinprompt-mlflow",
}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REFERENCE = re.compile(r"([a-z0-9][a-z0-9._/:-]*@)?sha256:[0-9a-f]{64}")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Refused(Exception):
    """What is wrong with the env file, in one sentence per line."""

    def __init__(self, message: str, code: int = BAD_PARAMS) -> None:
        super().__init__(message)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message} (see {self.prog} --help).")


def read(path: Path) -> dict[str, str]:
    """The names and values of an env file, in their order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def secret_names() -> list[str]:
    """The names below the example's heading "Secrets"."""
    text = EXAMPLE.read_text(encoding="utf-8")
    block = text[text.index("# Secrets.") :].split("\n\n", 1)[0]
    return [line.removesuffix("=") for line in block.splitlines() if line.endswith("=")]


def third_party() -> dict[str, str]:
    """Variable of the digest -> name and tag, as infra/compose.yaml has them."""
    return {name: image for image, name in re.findall(r"image: (\S+)@\$\{(\w+_DIGEST):", COMPOSE.read_text("utf-8"))}


def new_secret(name: str) -> str:
    """A random value that fits the name's purpose."""
    if name == FERNET:
        return base64.urlsafe_b64encode(os.urandom(32)).decode()
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTHS.get(name, 40)))


def new_pair() -> dict[str, str]:
    """A new pair of keys of signatures; openssl makes them."""
    private = _openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "")
    return {SIGNING: _body(private), VERIFICATION: _body(_openssl(["pkey", "-pubout"], private))}


def create(path: Path) -> None:
    """Write a new env file, mode 0600.

    Raises:
        Refused: there is one already, or openssl is not installed.
    """
    values = {name: new_secret(name) for name in secret_names()} | new_pair()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Refused(f"{path} exists; its secrets open the data that is there, so it is not overwritten.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_filled(EXAMPLE.read_text(encoding="utf-8"), values))


def pin(path: Path, engine: str) -> None:
    """Write the digests of the images into the env file: pulls those of others, takes the ids of the built ones.

    A value that is there is kept. To move to another tag, empty its line first.
    """
    values = read(path)
    image_digests = {}
    for name, image in third_party().items():
        if not values.get(name):
            _engine(engine, "pull", "--quiet", image)
            digests = _engine(engine, "image", "inspect", "--format", '{{join .RepoDigests " "}}', image)
            image_digests[name] = digests.split()[0].split("@")[1]
    for name, image in OWN_IMAGES.items():
        if not values.get(name):
            image_digests[name] = "sha256:" + _engine(engine, "image", "inspect", "--format", "{{.Id}}", image)[-64:]
    partial = path.with_name(path.name + ".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(_filled(path.read_text(encoding="utf-8"), image_digests))
    partial.replace(path)


def check(path: Path) -> None:
    """Raise Refused, with every problem, unless the env file can be used."""
    values, problems = read(path), []
    if path.stat().st_mode & 0o077:
        problems.append(f"{path} can be read by others: chmod 600 {path}")
    for name in sorted(read(EXAMPLE).keys() - values.keys()):
        problems.append(f"{name} is missing; copy its line from {EXAMPLE.name}")
    for name in sorted(values.keys() - read(EXAMPLE).keys()):
        problems.append(f"{name} is no setting of the stack; see {EXAMPLE.name}")
    for name in secret_names():
        problems.extend(_weak(name, values.get(name, "")))
    problems.extend(_no_pair(values.get(SIGNING, ""), values.get(VERIFICATION, "")))
    for name in third_party():
        if not DIGEST.fullmatch(values.get(name, "")):
            problems.append(f"{name} must be sha256: and 64 hexadecimal digits; run env.py pin")
    for name in OWN_IMAGES:
        if not REFERENCE.fullmatch(values.get(name, "")):
            problems.append(f"{name} must end in @sha256:… or be an image's id, not a tag; run env.py pin")
    if problems:
        raise Refused("\n".join(problems))


def _weak(name: str, value: str) -> list[str]:
    if name == FERNET:
        fine = re.fullmatch(r"[A-Za-z0-9_-]{43}=", value) is not None
        return [] if fine else [f"{name} must be 32 random bytes as URL-safe base64"]
    least = LENGTHS.get(name, 32)
    if re.fullmatch(r"[A-Za-z0-9]+", value) is None or len(value) < least or len(set(value)) < 8:
        return [f"{name} must be {least} or more random letters and digits"]
    return []


def _no_pair(private: str, public: str) -> list[str]:
    """What is wrong with the keys of signatures."""
    if re.fullmatch(r"[A-Za-z0-9+/]{184}", private) is None:
        return [
            f"{SIGNING} must be a private key of the curve P-256: all between the first and the last line of its PEM "
            "file, in one line; env.py new --file OTHER makes a pair"
        ]
    try:
        own = _body(
            _openssl(["pkey", "-pubout"], f"-----BEGIN PRIVATE KEY-----\n{private}\n-----END PRIVATE KEY-----\n")
        )
    except Refused as error:
        return [f"{SIGNING} can't be read: {error}"]
    return [] if own == public else [f"{VERIFICATION} is not the public key of {SIGNING}: that is {own}"]


def _body(pem: str) -> str:
    """The base64 of a PEM file, in one line."""
    return "".join(line for line in pem.splitlines() if line and not line.startswith("-----"))


def _openssl(arguments: list[str], given: str) -> str:
    try:
        done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused("openssl is not installed, or not on the path.", SERVICE_DOWN) from None
    if done.returncode != 0:
        raise Refused(f"openssl {' '.join(arguments)}: {done.stderr.strip()}", SERVICE_DOWN)
    return done.stdout


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
    return text


def _engine(engine: str, *arguments: str) -> str:
    try:
        done = subprocess.run([engine, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused(
            f"{engine} is not installed, or not on the path; name yours with --engine.", SERVICE_DOWN
        ) from None
    if done.returncode != 0:
        raise Refused(f"{engine} {' '.join(arguments)}: {done.stderr.strip()}", SERVICE_DOWN)
    return done.stdout.strip()


def main() -> int:
    """Run one of the three commands; the exit code."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["new", "pin", "check"])
    parser.add_argument("--file", type=Path, default=HERE / ".env", help="the env file")
    parser.add_argument("--engine", default="docker", help="the container engine's command: docker or podman")
    try:
        options = parser.parse_args()
        if options.command == "new":
            create(options.file)
        elif not options.file.exists():
            raise Refused(f"{options.file} does not exist; run env.py new first.", INPUT_MISSING)
        elif options.command == "pin":
            pin(options.file, options.engine)
        else:
            check(options.file)
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
