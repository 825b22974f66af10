"""Frozen vision-language backbones: what is known of them, and how they are loaded."""

from clinprompt.backbones.load import Backbone, load_backbone

__all__ = ["Backbone", "load_backbone"]
