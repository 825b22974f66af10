"""What a promotion has left: the registered models, and the component's result line."""

import json
from typing import Any

import pytest

from registry import listing


def state() -> dict[str, Any]:
    """The registered models: how many versions, which payloads, which aliases."""
    return {
        one["name"]: ([v["lineage"]["payload_digest"] for v in one["versions"]], one["aliases"])
        for one in listing.models()
    }


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The component's last result line."""
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line
