"""The store that leases and journals lie in: few operations, each of them atomic."""

from typing import NamedTuple, Protocol


class Stored(NamedTuple):
    """An object's bytes, and the mark of this version of it."""

    content: bytes
    etag: str


class Store(Protocol):
    """A place for small objects, shared by all processes that promote.

    A key is a relative path with "/". What is written must be unique to its writer (an id, a token): a write whose
    answer was lost is told from another's by its bytes.

    Each method raises ServiceDown where the store does not answer, and BadParams where it refuses.
    """

    def read(self, key: str) -> Stored | None:
        """The object, or None."""

    def create(self, key: str, content: bytes) -> str | None:
        """Write an object that is not there; its etag, or None where there is one."""

    def replace(self, key: str, content: bytes, etag: str) -> str | None:
        """Write over the version of an object that has this etag; the new etag, or None where it is another by now."""

    def list(self, prefix: str) -> list[str]:
        """The keys that begin with a prefix, sorted."""
