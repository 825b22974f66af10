"""A store in this process's memory."""

from registry.protocol.store import Stored


class MemoryStore:
    """Leases and journals that nobody else sees and that end with the process.

    It serves where a server has no journal: one process follows the protocol, and others only notice it by the alias.
    """

    def __init__(self) -> None:
        self._objects: dict[str, Stored] = {}
        self._writes = 0

    def read(self, key: str) -> Stored | None:
        """The object, or None."""
        return self._objects.get(key)

    def create(self, key: str, content: bytes) -> str | None:
        """Write an object that is not there."""
        return None if key in self._objects else self._write(key, content)

    def replace(self, key: str, content: bytes, etag: str) -> str | None:
        """Write over the version with this etag."""
        found = self._objects.get(key)
        return self._write(key, content) if found is not None and found.etag == etag else None

    def list(self, prefix: str) -> list[str]:
        """The keys that begin with a prefix, sorted."""
        return sorted(key for key in self._objects if key.startswith(prefix))

    def _write(self, key: str, content: bytes) -> str:
        self._writes += 1
        self._objects[key] = Stored(content, str(self._writes))
        return str(self._writes)
