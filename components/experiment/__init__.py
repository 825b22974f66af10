"""experiment: one method in one protocol on one dataset."""
