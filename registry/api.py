"""What `python -m registry` does, for programs: each verb is a function that returns plain values."""

from registry.collect import gc
from registry.consumer import champion, load
from registry.export import export, serve_check
from registry.follow import follow
from registry.listing import model as show
from registry.listing import models as list_models
from registry.promote import promote
from registry.provenance import diff, lineage, verify
from registry.reproduction import reproduce
from registry.revert import lift, rollback
from registry.signing import sign

__all__ = [
    "champion", "diff", "export", "follow", "gc", "lift", "lineage", "list_models", "load", "promote", "reproduce",
    "rollback", "serve_check", "show", "sign", "verify",
]  # fmt: skip
