"""cache: compute the frozen image features of a dataset."""
