"""Compute the frozen image features of a dataset."""
