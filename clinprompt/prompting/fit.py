"""Whether a method's knobs fit the loaded backbone and the language model's states."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from clinprompt.errors import BadParams
from clinprompt.limits import SizeName, problems

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone


def check_fit(method: str, config: Any, backbone: "Backbone", states: Sequence[int]) -> None:
    """Hold a method's config against its limits.

    Args:
        states: how many rows of the language model each class has; empty where there are none.

    Raises:
        BadParams: it keeps not to all of them; each that it breaks is told.
    """
    limits = getattr(type(config), "LIMITS", ())
    if not limits:
        return
    broken = problems(limits, config.model_dump(), lambda name: _size(backbone, states, name))
    if broken:
        raise BadParams(
            f"params.yaml: methods.{method} does not fit the backbone {backbone.name}: {'; '.join(broken)}."
        )


def _size(backbone: "Backbone", states: Sequence[int], name: SizeName) -> int | None:
    measure: dict[SizeName, Callable[[], int | None]] = {
        "text_blocks": lambda: len(backbone.text.blocks),
        "image_blocks": lambda: len(backbone.vision.blocks),
        "positions": lambda: backbone.text.context,
        "tokens": lambda: int(backbone.tokenize([""]).shape[1]),
        "patches": lambda: backbone.vision.patches,
        "patch": lambda: backbone.vision.patch[-1],
        "fewest_states": lambda: min(states, default=None),
        "most_states": lambda: max(states, default=None),
    }
    return measure[name]()
