"""Frozen image features, computed once per image and backbone and read many times."""
