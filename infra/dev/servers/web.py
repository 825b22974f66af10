"""One HTTP request with JSON both ways."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from clinprompt.errors import ClinpromptError, ServiceDown


class RestError(ClinpromptError):
    """A server refused a request; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def request(
    method: str,
    url: str,
    *,
    body: Any = None,
    query: dict[str, Any] | None = None,
    token: str = "",
    timeout: float = 30,
) -> Any:
    """Send a request and return the answer's JSON, or its text where it isn't JSON, or None where it is empty.

    Raises RestError for a status of 400 or more, and ServiceDown when nobody answers.
    """
    if query:
        url += "?" + urllib.parse.urlencode({k: v for k, v in query.items() if v is not None}, doseq=True)
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        http_request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  the URL is a stack's own
        with urllib.request.urlopen(http_request, timeout=timeout) as response:  # noqa: S310
            text, kind = response.read().decode(), response.headers.get_content_type()
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read().decode(errors="replace")[:2000]
        raise RestError(error.code, f"{method} {url}: status {error.code}: {reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise ServiceDown(f"{method} {url}: {error}") from None
    if not text:
        return None
    return json.loads(text) if kind == "application/json" else text


def answers(url: str) -> bool:
    """Whether a URL answers with success."""
    try:
        request("GET", url, timeout=5)
    except (RestError, ServiceDown):
        return False
    return True
