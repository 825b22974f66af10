"""The demonstration data, drawn from seeds, and the small backbone that is trained on it."""
