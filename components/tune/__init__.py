"""Tune one candidate with one seed."""
