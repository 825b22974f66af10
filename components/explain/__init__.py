"""The explain component."""
