"""Descriptions held against the cached features of images: grounding on the training split, influence on validation."""
