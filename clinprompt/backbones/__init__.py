"""Frozen vision-language backbones: the table of known ones, loading, and their towers as blocks."""
