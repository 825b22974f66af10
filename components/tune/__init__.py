"""Tune one method with one seed."""
