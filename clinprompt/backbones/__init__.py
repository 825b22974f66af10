"""Frozen vision-language backbones: the table of known ones, loading, and their towers as blocks."""

from clinprompt.backbones.load import Backbone, load_backbone

__all__ = ["Backbone", "load_backbone"]
