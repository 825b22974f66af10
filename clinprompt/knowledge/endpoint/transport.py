"""One request to an endpoint: bounded in bytes and time, never redirected, the key known to nobody else."""

import http.client
import io
import os
import re
import socket
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from clinprompt.errors import BadParams

MOST_BYTES = 1 << 20
_CHUNK = 1 << 16
_SHORTEST = 8  # characters of a key that is blotted out: a shorter one is no secret, and a part of words


class NoReply(Exception):
    """There was no reply; the message ends the sentence "the endpoint …"."""


class Endless(Exception):
    """The reply has more bytes than an answer can have."""


@dataclass(frozen=True)
class Reply:
    """A reply: its status, its body, and the header Retry-After ("" where there is none)."""

    status: int
    body: bytes
    retry_after: str


_deadline: ContextVar[float] = ContextVar("deadline")  # of this thread's request, by time.monotonic


class _Timely(io.RawIOBase):
    """What a socket receives, until the deadline: the socket's own timeout starts anew with each byte."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, deadline: float) -> None:
        self._raw, self._socket, self._ends = raw, connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimelyResponse(http.client.HTTPResponse):
    """A response whose headers, too, must come before the deadline."""

    def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp: io.BufferedReader = io.BufferedReader(_Timely(self.fp.detach(), sock, _deadline.get()))


class _Http(urllib3.connection.HTTPConnection):
    response_class = _TimelyResponse


class _Https(urllib3.connection.HTTPSConnection):
    response_class = _TimelyResponse


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    """Connections of which a request is bounded as a whole, through a proxy or not."""

    _pools = {"http": _HttpPool, "https": _HttpsPool}

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Bearer(AuthBase):
    """Puts the key into the request's header, and keeps ~/.netrc out of it."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def find_key(variable: str) -> str:
    """The endpoint's key; "" where the variable is not set.

    Raises:
        BadParams: it can't be a key; it is not shown.
    """
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise BadParams(f"{variable}: holds blanks or characters that no key has; set it to the endpoint's key.")
    return key


class Transport:
    """Connections to one URL, for a number of threads at once.

    Args:
        key: is sent with each request, and blotted out of each reply; "" where none is needed.
        timeout: seconds for a whole request.
    """

    def __init__(self, url: str, key: str, timeout: float, connections: int) -> None:
        self._url, self._key, self._timeout = url, key, timeout
        self._session = requests.Session()
        self._session.auth = _Bearer(key)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _Adapter(pool_maxsize=connections))

    def post(self, body: bytes) -> Reply:
        """Send a JSON body.

        Raises:
            NoReply: none came, or not in time.
            Endless: it had more than `MOST_BYTES`.
        """
        deadline = time.monotonic() + self._timeout
        _deadline.set(deadline)
        try:
            return self._post(body, deadline)
        except requests.exceptions.SSLError:
            raise NoReply(
                "has a certificate that can't be verified (set REQUESTS_CA_BUNDLE to your authority's)"
            ) from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise NoReply(f"gave no whole answer within {self._timeout:g} seconds") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
            raise NoReply("could not be connected to, or broke the connection") from None

    def _post(self, body: bytes, deadline: float) -> Reply:
        with self._session.post(
            self._url,
            data=body,
            headers={"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=self._timeout,
            stream=True,
            allow_redirects=False,
        ) as response:
            content = bytearray()
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                content += chunk
                if len(content) > MOST_BYTES:
                    raise Endless
                if time.monotonic() > deadline:
                    raise requests.Timeout
            whole = (
                bytes(content).replace(self._key.encode(), b"***") if len(self._key) >= _SHORTEST else bytes(content)
            )
            return Reply(response.status_code, whole, response.headers.get("Retry-After", ""))
