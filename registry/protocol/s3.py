"""A store below a prefix of an S3 bucket, by conditional writes (`If-None-Match: *`, `If-Match: ETAG`)."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from clinprompt.errors import BadParams, ClinpromptError, ServiceDown
from registry.protocol.store import Stored

_REFUSED = ("PreconditionFailed", "412")
_BUSY = ("ConditionalRequestConflict", "409", "OperationAborted")  # another write to the key goes on: look again
_ABSENT = ("NoSuchKey", "404", "NotFound")
_TRIES = 5
_PROBE = "conditional-writes"
_WRITERS = 8  # at once, when a server is tried out


class S3Store:
    """Objects of a bucket; address, region and keys are boto3's own (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …).

    Args:
        url: "s3://bucket/prefix".
        client: boto3's client of S3; by default one is made.
    """

    def __init__(self, url: str, client: Any = None) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not bucket:
            raise BadParams(f"{url!r} is no place for a journal: write s3://bucket/prefix.")
        self.url, self._bucket, self._prefix = url.rstrip("/"), bucket, f"{prefix.strip('/')}/" if prefix else ""
        self._client = client or _client()
        self._quotes = True

    def check(self) -> None:
        """Find out whether the server holds to the conditions: on one that ignores them a journal would be no journal.

        Also for several writers at once, as some look and write in two steps (SeaweedFS until 4.16,
        https://github.com/seaweedfs/seaweedfs/issues/8800). And how it wants an ETag: in quotes, as the standard has
        it, or without them, as Ceph 16.

        Raises:
            BadParams: it writes all the same, as some servers do, and Ceph 16 in a bucket with versioning.
        """
        key, raced = (f"{_PROBE}-{uuid.uuid4().hex}" for _ in range(2))
        first = self.create(key, b"1")
        if first is None or self.create(key, b"2") or self.replace(key, b"3", f'"{uuid.uuid4().hex}"'):
            raise BadParams(
                f"{self.url} can hold no journal: the server ignores the conditions of writes (If-None-Match, "
                "If-Match). Name a bucket without versioning, on a server that knows them, in registry.journal."
            )
        if self.replace(key, b"4", first) is None:
            self._quotes = False
            if self.replace(key, b"5", first) is None:
                raise BadParams(f"{self.url} can hold no journal: the server refuses every write on a condition.")
        with ThreadPoolExecutor(_WRITERS) as pool:
            made = list(pool.map(lambda writer: self.create(raced, str(writer).encode()), range(_WRITERS)))
        if sum(etag is not None for etag in made) != 1:
            raise BadParams(
                f"{self.url} can hold no journal: of writers at once, each on the condition that there is no such "
                "object, the server lets more than one write. Name another server in registry.journal."
            )
        with suppress(ClinpromptError), self._errors():  # who may not delete leaves two bytes
            for tried in (key, raced):
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + tried)

    def read(self, key: str) -> Stored | None:
        """The object, or None."""
        with self._errors():
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
                return Stored(answer["Body"].read(), str(answer["ETag"]))
            except _client_error() as error:
                if _code(error) in _ABSENT:
                    return None
                raise

    def create(self, key: str, content: bytes) -> str | None:
        """Write an object that is not there."""
        return self._put(key, content, IfNoneMatch="*")

    def replace(self, key: str, content: bytes, etag: str) -> str | None:
        """Write over the version with this etag."""
        return self._put(key, content, IfMatch=etag if self._quotes else etag.strip('"'))

    def list(self, prefix: str) -> list[str]:
        """The keys that begin with a prefix, sorted."""
        keys: list[str] = []
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                keys += [str(entry["Key"]).removeprefix(self._prefix) for entry in page.get("Contents", [])]
        return sorted(keys)

    def _put(self, key: str, content: bytes, **condition: str) -> str | None:
        for attempt in range(1, _TRIES + 1):
            with self._errors():
                try:
                    answer = self._client.put_object(
                        Bucket=self._bucket, Key=self._prefix + key, Body=content, **condition
                    )
                    return str(answer["ETag"])
                except _client_error() as error:
                    code = _code(error)
                    if code in _BUSY and attempt < _TRIES:
                        continue
                    if code not in (*_REFUSED, *_ABSENT, *_BUSY):
                        raise
            break
        # boto3 sends a request again whose answer was lost: the first may have been carried out.
        found = self.read(key)
        return found.etag if found is not None and found.content == content else None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error  # type: ignore[import-untyped,unused-ignore]
        from botocore.exceptions import (  # type: ignore[import-untyped,unused-ignore]
            BotoCoreError,
            NoCredentialsError,
        )

        from registry.tracking import is_away

        try:
            yield
        except NoCredentialsError:
            raise BadParams(f"There are no keys for the journal {self.url}: set AWS_ACCESS_KEY_ID.") from None
        except (BotoCoreError, Boto3Error, _client_error()) as error:
            if is_away(error):
                raise ServiceDown(
                    f"The S3 server of the registry's journal {self.url} does not answer ({_code(error)})."
                ) from None
            raise BadParams(
                f"The S3 server refuses the registry's journal {self.url}: {_code(error)}. Set registry.journal and "
                "the keys right."
            ) from None


def _client() -> Any:
    import boto3  # type: ignore[import-untyped,unused-ignore]
    from botocore.config import Config  # type: ignore[import-untyped,unused-ignore]

    return boto3.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 3}))


def _client_error() -> Any:
    from botocore.exceptions import ClientError

    return ClientError


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else type(error).__name__
