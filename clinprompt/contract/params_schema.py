"""`params.schema.json`: the JSON schema of the sections `methods` and `protocols` of params.yaml.

It is made from the methods' and protocols' own models (`python -m clinprompt.experiments.schema`), for programs that
cannot import them.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("params.schema.json")


@cache
def params_schema() -> dict[str, Any]:
    """The whole schema; `properties` holds the two sections, `knowledge` what each method reads of a language model,
    `knowledge_by_knob` what it reads beyond that with a certain value of a knob, `records` which methods read the
    subjects' records, `limits` what a method's knobs must keep to."""
    schema: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return schema


def method_names() -> list[str]:
    """All methods, sorted."""
    return sorted(params_schema()["$defs"]["methods"]["properties"])


def knowledge_of(method: str, knobs: Mapping[str, Any]) -> list[str]:
    """What of the stage `describe` a method with these knobs reads: "descriptions", "hidden_states", "paraphrases", or
    none. Knobs that are not given have their defaults."""
    by_knob: dict[str, dict[str, list[str]]] = params_schema()["knowledge_by_knob"].get(method, {})
    further = [name for knob, values in by_knob.items() for name in values.get(str(knobs.get(knob)), [])]
    return sorted({*params_schema()["knowledge"][method], *further})


def reads_records(method: str) -> bool:
    """Whether a method learns from the record that a dataset's card tells of each subject."""
    return method in params_schema()["records"]


def limits_of(method: str) -> list[dict[str, Any]]:
    """What a method's knobs must keep to, as `clinprompt.limits.Limit` has it."""
    limits: list[dict[str, Any]] = params_schema()["limits"][method]
    return limits


def knob_defaults(method: str) -> dict[str, Any]:
    """The knobs of a method with their default values."""
    defs = params_schema()["$defs"]
    config = defs[defs["methods"]["properties"][method]["$ref"].rpartition("/")[2]]
    return {name: knob["default"] for name, knob in config["properties"].items() if "default" in knob}
