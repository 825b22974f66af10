"""A bound on the tokens that a run may cost, shared by its threads."""

from threading import Lock

from clinprompt.errors import BadParams


class Budget:
    """Tokens that are left. Each request reserves the most that it can cost, so the bound is never passed.

    Args:
        total: None for no bound.
        key: of the endpoint in params.yaml, for the message.
    """

    def __init__(self, total: int | None, key: str) -> None:
        self._key = key
        self._total, self._reserved, self._lock = total, 0, Lock()
        self.spent = 0

    def reserve(self, most: int) -> None:
        """Set tokens aside for a request.

        Raises:
            BadParams: they are not left.
        """
        with self._lock:
            if self._total is not None and self.spent + self._reserved + most > self._total:
                raise BadParams(
                    f"params.yaml: {self._key}.token_budget: {self.spent} of {self._total} tokens are spent, "
                    f"and a request may cost {most} more; the finished answers are kept: raise it and run again."
                )
            self._reserved += most

    def settle(self, most: int, used: int) -> None:
        """Give back what a request has not used of what was set aside for it."""
        with self._lock:
            self._reserved -= most
            self.spent += used
