"""Frozen vision-language backbones: the table of known ones, loading, and their towers as blocks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone, load_backbone

__all__ = ["Backbone", "load_backbone"]


def __getattr__(name: str) -> Any:
    """Import torch for those who load a backbone, and not for those who read the table."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clinprompt.backbones import load

    return getattr(load, name)
