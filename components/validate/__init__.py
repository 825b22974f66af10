"""Checks the images and decides whether they are fit for training."""
