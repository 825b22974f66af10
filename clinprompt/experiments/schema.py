"""Write `clinprompt/contract/params.schema.json` from the methods' and the protocols' own models.

`python -m clinprompt.experiments.schema`, after a method's or a protocol's knobs have changed, or a method was added.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from clinprompt.contract.params_schema import FILE
from clinprompt.experiments.protocols import PROTOCOLS
from clinprompt.experiments.section import Protocols
from clinprompt.experiments.tables.presets import presets
from clinprompt.files import write_text
from clinprompt.methods import method, names

_FOR_PEOPLE = ("title", "description")


def schema() -> str:
    """The JSON schema, as it stands in the file."""
    methods = {name: method(name).Config for name in names()}
    distinct: list[type[BaseModel]] = list(dict.fromkeys([*methods.values(), Protocols]))
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in distinct]
    references, definitions = models_json_schema(models, ref_template="#/$defs/{model}")
    defs = {name: _plain(model) for name, model in definitions["$defs"].items()}
    for key, protocol in PROTOCOLS.items():
        defs[protocol.__name__]["properties"]["methods"] = {"$ref": "#/$defs/methods"}
        known_presets = [name for name, one in presets().items() if key in one.protocols]
        defs[protocol.__name__]["properties"]["preset"]["anyOf"][0] = {"enum": known_presets}
    defs[Protocols.__name__]["properties"]["names"]["items"] = {"enum": list(PROTOCOLS)}
    defs["methods"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: references[model, "validation"] for name, model in methods.items()},
    }
    defs["protocols"] = references[Protocols, "validation"]
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by python -m clinprompt.experiments.schema",
        "type": "object",
        "properties": {"methods": {"$ref": "#/$defs/methods"}, "protocols": {"$ref": "#/$defs/protocols"}},
        "knowledge": {name: sorted(method(name).needs(config()).knowledge) for name, config in methods.items()},
        "knowledge_by_knob": {name: found for name, config in methods.items() if (found := _by_knob(name, config))},
        "records": [name for name, config in methods.items() if method(name).needs(config()).reports is not None],
        "limits": {
            name: [limit.model_dump(mode="json", exclude_defaults=True) for limit in getattr(config, "LIMITS", ())]
            for name, config in methods.items()
        },
        "$defs": defs,
    }
    return json.dumps(whole, indent=1, sort_keys=True) + "\n"


def _plain(model: dict[str, Any]) -> dict[str, Any]:
    """A model's schema without its words for people, whose editing changes nothing."""
    kept = {key: value for key, value in model.items() if key not in _FOR_PEOPLE}
    properties = {
        name: {key: value for key, value in knob.items() if key not in _FOR_PEOPLE}
        for name, knob in model.get("properties", {}).items()
    }
    return kept | {"properties": properties}


def _by_knob(name: str, config: type[BaseModel]) -> dict[str, dict[str, list[str]]]:
    """What a method reads beyond what it always does, by a knob that decides it and the knob's value."""
    always = method(name).needs(config()).knowledge
    found: dict[str, dict[str, list[str]]] = {}
    for knob, value in _choices(config):
        try:
            further = method(name).needs(config(**{knob: value})).knowledge - always
        except ValidationError:  # it needs another knob beside it
            continue
        if further:
            found.setdefault(knob, {})[value] = sorted(further)
    return found


def _choices(config: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Every knob that takes one of some words, with each."""
    for knob, model in config.model_json_schema()["properties"].items():
        for value in model.get("enum", []):
            yield knob, value


def main() -> int:
    """Write the file."""
    write_text(FILE, schema())
    return 0


if __name__ == "__main__":
    sys.exit(main())
