"""Curated words of modalities, organs and findings, as data, and how they are found in a text."""
