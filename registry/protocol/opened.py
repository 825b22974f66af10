"""Open a turn: the lease is this process's, and what earlier turns have left is finished."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from registry import tracking
from registry.protocol import lease, location
from registry.protocol.clock import Clock, SystemClock
from registry.protocol.journal import UNFINISHED, Journal
from registry.protocol.models import MlflowModels, Models, ref
from registry.protocol.reconcile import reconcile
from registry.protocol.store import Store
from registry.protocol.turn import Turn
from registry.versions import CHAMPION, Version, check_name, require


@contextmanager
def opened(name: str, configured: str | None = None, *, new: bool = False) -> Iterator[Turn]:
    """The turn at the registered model `name`, in its journal.

    Args:
        configured: `registry.journal` of params.yaml.
        new: whether the model may not be there yet, as before its first promotion. A misspelt name makes nothing.

    Raises:
        BadParams: the store can't be written to, or the journal is another than the model's own.
        InputMissing: there is no such model.
        InputCorrupt: an entry of the journal was damaged.
        ServiceDown: the journal's store or MLflow does not answer, or another process does not end its turn.
    """
    if new:
        check_name(name)
    else:
        require(name)
    with tracking.promotion_lock() as alone:
        where = location.address(name, configured)
        store, models = location.store_at(where), MlflowModels(name)
        with turn_at(store, models, SystemClock(), alone=alone) as turn:
            if where is not None:
                location.record(name, where)
            yield turn
            if where is not None:
                location.record(name, where)  # a first promotion has made the model


@contextmanager
def turn_at(store: Store, models: Models, clock: Clock, *, alone: bool = False) -> Iterator[Turn]:
    """The turn at a model, in a store.

    Args:
        alone: a lock of the operating system keeps all other processes out.
    """
    journal = Journal(store, models.name)
    with lease.held(store, journal.lease_key, clock, alone=alone) as mine:
        turn = Turn(models, journal, mine, clock, partial(turn_at, store, models, clock, alone=alone))
        reconcile(turn)
        yield turn


def settled_champion(name: str, configured: str | None = None) -> Version | None:
    """The champion where the journal agrees and has nothing unfinished, so that no turn is needed to trust it.

    Without a journal it is what the alias says.

    Raises:
        ServiceDown: the journal's store or MLflow does not answer.
    """
    models = MlflowModels(check_name(name))
    champion = models.by_alias(CHAMPION)
    if champion is None:
        return None
    where = location.address(name, configured)
    if where is None:
        return champion
    head = Journal(location.store_at(where), name).head()
    settled = head is not None and head.entry.state not in UNFINISHED and head.entry.champion == ref(champion)
    return champion if settled else None
