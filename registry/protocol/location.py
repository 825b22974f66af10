"""Where the journal of a model lies."""

import logging
import os
from functools import cache
from pathlib import Path

from clinprompt.contract.variables import JOURNAL, STORE
from clinprompt.errors import BadParams
from registry import tracking
from registry.protocol.folder import FolderStore
from registry.protocol.memory import MemoryStore
from registry.protocol.s3 import S3Store
from registry.protocol.store import Store

log = logging.getLogger(__name__)

TAG = "promotion_journal"  # of the registered model: where its journal lies, so that nobody promotes without it
_IN_STORE = "registry-journal"


def address(name: str, configured: str | None) -> str | None:
    """The journal of the registered model `name`: s3://bucket/prefix, a folder, or None where there is none.

    A local store has it beside itself. For a server it is `registry.journal`, or else what CLINPROMPT_JOURNAL names, or
    a folder of the store that the scheduler's tasks share (CLINPROMPT_STORE); the model keeps where it is.

    Raises:
        BadParams: it is another than the one that the model's promotions went through.
    """
    local = tracking.local_store()
    if local is not None:
        return str(local.with_name(f"{local.name}.journal"))
    shared = os.environ.get(STORE)
    named = configured or os.environ.get(JOURNAL)
    asked = named or (f"{shared.rstrip('/')}/{_IN_STORE}" if shared else None)
    recorded = _recorded(name)
    if asked is not None and recorded is not None and asked != recorded:
        raise BadParams(
            f"The promotions of {name!r} are in the journal {recorded}, and here {asked} is named (registry.journal, "
            f"{JOURNAL} or {STORE}). Name that one; to move a journal, copy it and change the tag {TAG!r} of the "
            "registered model."
        )
    return asked or recorded


def shared_place(configured: str | None) -> str | None:
    """Where who trains may write, too: beside a local store, else in the store that the scheduler's tasks share.

    Without such a store it is where the journal is named. Not what the model keeps, which only the promoter may open.
    """
    local, shared = tracking.local_store(), os.environ.get(STORE)
    if local is not None:
        return str(local.with_name(f"{local.name}.journal"))
    return f"{shared.rstrip('/')}/{_IN_STORE}" if shared else configured or os.environ.get(JOURNAL)


def store_at(where: str | None) -> Store:
    """The store at an address.

    Raises:
        BadParams: it can hold no journal.
        ServiceDown: it does not answer.
    """
    if where is None:
        log.warning(
            "%s is a server, and no journal of its promotions is named (registry.journal in params.yaml): two at once "
            "are noticed at the alias, and are not kept apart.", tracking.shown_uri(),
        )  # fmt: skip
        return MemoryStore()
    if where.startswith("s3://"):
        return _checked(where)
    if "://" in where:
        raise BadParams(f"{where} is no place for a journal: write s3://bucket/prefix, or a folder.")
    return FolderStore(Path(where))


@cache
def _checked(where: str) -> S3Store:
    """A store in S3, tried out once for each process."""
    store = S3Store(where)
    store.check()
    return store


def record(name: str, where: str) -> None:
    """Write into the registered model, where there is one, where its journal lies."""
    if tracking.local_store() is None and _recorded(name) is None:
        from mlflow.exceptions import MlflowException

        client = tracking.connect()
        with tracking.service_errors():
            try:
                tracking.insert(client.set_registered_model_tag, name, TAG, where)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise


def _recorded(name: str) -> str | None:
    client = tracking.connect()
    from mlflow.exceptions import MlflowException

    with tracking.service_errors():
        try:
            tags: dict[str, str] = client.get_registered_model(name).tags
            return tags.get(TAG)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
