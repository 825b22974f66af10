"""Brains in three dimensions: a published template, deformed for each subject as age and disease would."""
