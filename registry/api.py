"""What `python -m registry` does, for programs: each verb is a function of its name that returns plain values.

`list` is Python's own elsewhere: `from registry import api` and `api.list()`. `load` gives the model itself, and
`retrain` is what `promote --reproduce` does first.
"""

from registry.collect import gc
from registry.consumer import champion, load
from registry.export import export, serve_check
from registry.follow import follow
from registry.held_out import decisions
from registry.listing import model as show
from registry.listing import models as list
from registry.provenance import diff, lineage, verify
from registry.reproduced import retrain
from registry.reproduction import reproduce
from registry.results import pull as pull_results
from registry.results import push as push_results
from registry.revert import lift as unquarantine
from registry.revert import rollback
from registry.signing import sign
from registry.stage import promote

__all__ = [
    "champion", "decisions", "diff", "export", "follow", "gc", "lineage", "list", "load", "promote", "pull_results",
    "push_results", "reproduce", "retrain", "rollback", "serve_check", "show", "sign", "unquarantine", "verify",
]  # fmt: skip
