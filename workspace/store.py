"""The store: small JSON objects beside the DVC remote, in a folder or on S3."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from clinprompt.contract.variables import STORE
from clinprompt.errors import BadParams, InputCorrupt, InputMissing, ServiceDown
from components.rights import umask

# Errors of botocore and aiohttp, by name: importing them costs a second that a folder store does not need.
_NO_ANSWER = {
    "ClientConnectionError",
    "ClientConnectorError",
    "ClientOSError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "HTTPClientError",
    "ReadTimeoutError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError"}
_REFUSALS = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden")
_TRY_LATER = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "503", "500")


T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """A folder or an S3 prefix; `remote` is the DVC remote in it."""

    url: str

    @property
    def remote(self) -> str:
        """The DVC remote's address."""
        return f"{self.url}/dvc"

    def read(self, key: str) -> Any:
        """The JSON object at a key, or None.

        Raises:
            BadParams: a part of the key is no name.
        """
        fs, path = self._at(key)
        with service_errors(self.url):
            try:
                data = fs.cat_file(path)
            except FileNotFoundError:
                return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise InputCorrupt(f"{self.url}/{key} is not valid JSON; remove it and publish it again.") from None

    def read_as(self, kind: type[T], key: str) -> T | None:
        """The object at a key as what it should be, a dataclass or a mapping; None where there is none.

        Raises:
            InputCorrupt: it is something else.
        """
        content = self.read(key)
        if content is None:
            return None
        try:
            return TypeAdapter(kind).validate_python(content)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole of it"
            raise InputCorrupt(
                f"{self.url}/{key} is not what this project writes there ({where}); remove it and publish it again."
            ) from None

    def write(self, key: str, value: Any) -> None:
        """Write a JSON object; a reader sees the old one or the new one."""
        fs, path = self._at(key)
        text = json.dumps(value, sort_keys=True, indent=1) + "\n"
        with service_errors(self.url):
            if "file" in _protocols(fs):
                fs.makedirs(fs._parent(path), exist_ok=True)
                partial = f"{path}.{os.getpid()}.partial"
                fs.pipe_file(partial, text.encode())
                os.replace(partial, path)
            else:
                fs.pipe_file(path, text.encode())

    def keys(self, prefix: str) -> list[str]:
        """The keys of the JSON objects below a folder of keys, sorted."""
        fs, path = self._at(prefix)
        root = self._at("")[1].rstrip("/") + "/"
        with service_errors(self.url):
            fs.invalidate_cache()
            paths = fs.find(path)
        return sorted(key.removeprefix(root) for key in paths if key.endswith(".json"))

    def check(self) -> None:
        """Raise ServiceDown or BadParams when the store cannot be listed."""
        fs, path = self._at("")
        with service_errors(self.url):
            fs.invalidate_cache()
            fs.ls(path.rstrip("/"))

    def _at(self, key: str) -> tuple[Any, str]:
        """The file system and path of a key: the one place where a name could lead out of the store."""
        import fsspec

        for part in key.removesuffix("/").split("/") if key else ():
            checked_name(part)
        fs, path = fsspec.core.url_to_fs(f"{self.url}/{key}")
        return fs, path


def checked_name(text: str) -> str:
    """A dataset's or release's name, which is a part of keys.

    Raises:
        BadParams: it is none, and might lead to other keys or out of the store.
    """
    if not _NAME.fullmatch(text):
        raise BadParams(
            f"{text!r} is no name of a dataset or release: it begins with a letter or digit, and has letters, digits, "
            "'.', '_' and '-' alone."
        )
    return text


def open_store() -> Store:
    """The store that CLINPROMPT_STORE names.

    Raises:
        BadParams: the variable is not set, or names neither a folder nor an S3 prefix.
    """
    url = os.environ.get(STORE, "").rstrip("/")
    if not url:
        raise BadParams(f"{STORE} is not set: name the store, s3://bucket/prefix or a folder.")
    if "://" not in url:
        folder = Path(url).expanduser().absolute()
        folder.mkdir(mode=0o777 & ~umask(), parents=True, exist_ok=True)  # it will hold patients' images
        return Store(str(folder))
    if not url.startswith("s3://"):
        raise BadParams(f"{STORE} is {url!r}; it must be s3://bucket/prefix or a folder.")
    return Store(url)


@contextmanager
def service_errors(url: str) -> Iterator[None]:
    """Turn what S3 clients and DVC raise into errors that a scheduler can act on.

    Raises:
        ServiceDown: no answer, or an answer that says to try later.
        BadParams: other credentials are wanted.
        InputMissing: there is no such bucket.
    """
    try:
        yield
    except Exception as error:
        for cause in _chain(error):
            kind, text = type(cause).__name__, str(cause)
            if kind in _NO_ANSWER or isinstance(cause, ConnectionError | TimeoutError):
                raise ServiceDown(f"The store {url} does not answer ({_first_line(text)}).") from error
            if kind in _NO_CREDENTIALS or (
                kind in ("ClientError", "PermissionError") and _contains_any(text, _REFUSALS)
            ):
                raise BadParams(f"The store {url} refuses the credentials ({_first_line(text)}).") from error
            if kind in ("ClientError", "OSError") and _contains_any(text, _TRY_LATER):
                raise ServiceDown(f"The store {url} asks to try later ({_first_line(text)}).") from error
            if "NoSuchBucket" in text or "bucket does not exist" in text:
                raise InputMissing(f"The store {url}: there is no such bucket; create it.") from error
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    visited: set[int] = set()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _contains_any(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for phrase in phrases)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"
