"""The MLflow registry: package a tuned model, promote it, and load what is in production."""

from registry.consumer import Champion, champion, load
from registry.follow import Followed, follow
from registry.revert import rollback

__all__ = ["Champion", "Followed", "champion", "follow", "load", "rollback"]
