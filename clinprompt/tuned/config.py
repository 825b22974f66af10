"""A method's knobs on one dataset: those of params.yaml, with what the dataset's card and an experiment set instead."""

from collections.abc import Mapping
from typing import Any

from clinprompt.data.card import Card
from clinprompt.methods import check_config, method
from clinprompt.schema import Section, check


def method_config(
    name: str,
    knobs: Mapping[str, Any],
    card: Card,
    protocol: str | None = None,
    experiment: Mapping[str, Any] | None = None,
) -> Section:
    """The checked config of a method on a dataset. The later wins: `knobs`, the card's, the card's for the protocol,
    the experiment's own.

    Args:
        knobs: what stands under methods.<name> in params.yaml.
        protocol: the experiment's protocol, as "base_to_novel"; None outside experiments.
        experiment: what stands under protocols.<protocol>.methods.<name> in params.yaml.

    Raises:
        BadParams: there is no such method; or a key is unknown, missing or wrong: its file and path are named.
    """
    values = dict(knobs)
    config = check_config(name, values)
    changes = [(f"datasets/{card.name}.yaml", key, found) for key, found in card.knobs(name, protocol).items()]
    changes.append(("params.yaml", f"protocols.{protocol}.methods.{name}", dict(experiment or {})))
    for file, key, found in changes:
        if found:
            values |= found
            config = check(method(name).Config, values, file, key)
    return config
