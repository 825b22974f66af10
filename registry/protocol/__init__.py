"""The promotion protocol: what makes a change of MLflow's aliases one step, on a laptop and on a server.

MLflow's aliases are last-writer-wins, so the truth is a journal beside them, in a store with compare-and-swap. One
process at a time has the turn (a lease with a fencing token). A change is written as an intent, committed, carried out
on the aliases, read back and closed; whoever has the next turn first finishes or undoes what an earlier one has left.
"""

from registry.protocol.opened import opened, settled_champion
from registry.protocol.turn import Turn

__all__ = ["Turn", "opened", "settled_champion"]
