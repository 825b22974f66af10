"""A consumer that runs for long: it follows the champion, and goes on with the last good model where it can't."""

import logging
from typing import TYPE_CHECKING, Any

from clinprompt.errors import ClinpromptError, InputMissing
from registry import tracking
from registry.consumer import Champion, champion
from registry.versions import CHAMPION

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class Followed:
    """The model that carries an alias, as it was last verified.

    Attributes:
        stale: why it may not be the one that carries the alias now; None where it was when last looked.
    """

    def __init__(self, name: str, alias: str = CHAMPION) -> None:
        """Load it; every digest is checked before its code is run.

        Raises:
            InputMissing: no version carries the alias.
            InputCorrupt: a file differs from what was registered.
            ServiceDown: the MLflow server does not answer.
        """
        self._name, self._alias = name, alias
        self.stale: str | None = None
        self._serving = self._verified(None)

    @property
    def version(self) -> int:
        """The number of the version that predicts."""
        return self._serving.version

    def predict(self, table: "pd.DataFrame | list[dict[str, Any]]") -> "pd.DataFrame":
        """What that says of images, as a registered model does."""
        answers: pd.DataFrame = self._serving.model.predict(table)
        return answers

    def refresh(self) -> bool:
        """Look who carries the alias, and load it where that is another version; whether it was.

        Where the registry is away, nobody carries the alias, or what carries it can't be verified, the last good model
        goes on and `stale` says why. Call it as often as a new champion is to be noticed; it is for one thread.
        """
        try:
            found = self._verified(self._serving)
        except ClinpromptError as error:
            self.stale = str(error)
            log.warning("%s version %d goes on: %s", self._name, self.version, error)
            return False
        changed, self._serving, self.stale = found is not self._serving, found, None
        return changed

    def _verified(self, before: Champion | None) -> Champion:
        found = champion(self._name, self._alias)
        if found is None:
            raise InputMissing(
                f"No version of {self._name!r} carries the alias {self._alias!r} at {tracking.shown_uri()}."
            )
        if before is not None and (found.version, found.payload_digest) == (before.version, before.payload_digest):
            return before
        _ = found.model
        return found


def follow(name: str, alias: str = CHAMPION) -> Followed:
    """The model that carries the alias, to be refreshed from time to time.

    Raises:
        InputMissing, InputCorrupt, ServiceDown: as `Followed`.
    """
    return Followed(name, alias)
