"""A method's knobs on one dataset: those of params.yaml, with what the dataset's card and an experiment set instead."""

from collections.abc import Mapping
from typing import Any

from clinprompt.data.card import Card
from clinprompt.methods import check_config, method
from clinprompt.params import CandidateSpec
from clinprompt.schema import Section, check

PARAMS = "params.yaml"


def method_config(
    name: str,
    knobs: Mapping[str, Any],
    card: Card,
    protocol: str | None = None,
    experiment: Mapping[str, Any] | None = None,
    variant: Mapping[str, Any] | None = None,
    preset: Mapping[str, Any] | None = None,
) -> Section:
    """The checked config of a method on a dataset. The later wins: the method's defaults, `knobs`, the card's, the
    card's for the protocol, the preset's, the experiment's own, the variant's.

    Args:
        knobs: what stands under methods.<name> in params.yaml; it may be empty.
        protocol: the experiment's protocol, as "base_to_novel"; None outside experiments.
        experiment: what stands under protocols.<protocol>.methods.<name> in params.yaml.
        variant: what a variant of candidates.variants sets.
        preset: what the preset of protocols.<protocol>.preset sets of the method.

    Raises:
        BadParams: there is no such method; or a key is unknown or wrong: its file and path are named.
    """
    last = {
        f"protocols.{protocol}.preset": preset or {},
        f"protocols.{protocol}.methods.{name}": experiment or {},
        "candidates.variants": variant or {},
    }
    return _config(name, knobs, card, protocol, last)


def candidate_config(candidate: CandidateSpec, card: Card) -> Section:
    """The checked config of a candidate on a dataset. The later wins: the method's defaults, its knobs in params.yaml,
    the card's, and the variant's own, so that a sweep can set what a card sets.

    Raises:
        BadParams: a key is unknown or wrong: its file and path are named.
    """
    last = {f"candidates.variants.{candidate.name}": candidate.variant}
    return _config(candidate.method, candidate.knobs, card, None, last)


def _config(
    name: str, knobs: Mapping[str, Any], card: Card, protocol: str | None, last: Mapping[str, Mapping[str, Any]]
) -> Section:
    values = dict(knobs)
    config = check_config(name, values)
    changes = [(f"datasets/{card.name}.yaml", key, change) for key, change in card.knobs(name, protocol).items()]
    for file, key, change in [*changes, *((PARAMS, key, dict(change)) for key, change in last.items())]:
        if change:
            values |= change
            config = check(method(name).Config, values, file, key)
    return config
