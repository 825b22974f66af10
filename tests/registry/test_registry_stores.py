"""The stores of the journal: what is written once, what is replaced, and what is refused."""

import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from clinprompt.errors import BadParams, ServiceDown
from registry.protocol import location
from registry.protocol.folder import FolderStore
from registry.protocol.location import store_at
from registry.protocol.memory import MemoryStore
from registry.protocol.s3 import S3Store


class Bucket:
    """A client of S3 with one bucket in memory, which holds to the conditions of writes, or not.

    Args:
        conditions: whether it knows them.
        quotes: whether it wants an ETag in quotes.
        gap: whether another writer may come in between its look at an object and its write.
    """

    def __init__(self, *, conditions: bool = True, quotes: bool = True, gap: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self._two, self._one = (threading.Barrier(2) if gap else None), threading.Lock()
        self.conditions, self.quotes = conditions, quotes
        self.fail: Callable[[str], Exception | None] = lambda operation: None
        self.lose_answers = 0

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self._maybe_fail("GetObject")
        if Key not in self.objects:
            raise refused("GetObject", "NoSuchKey", 404)
        return {"Body": io.BytesIO(self.objects[Key]), "ETag": etag(self.objects[Key])}

    def put_object(self, Bucket: str, Key: str, Body: bytes, **condition: str) -> dict[str, Any]:
        self._maybe_fail("PutObject")
        if self._two is None:
            with self._one:
                return self._put(Key, Body, condition)
        return self._put(Key, Body, condition)

    def _put(self, Key: str, Body: bytes, condition: dict[str, str]) -> dict[str, Any]:
        found = self.objects.get(Key)
        if self.conditions and "IfNoneMatch" in condition and found is not None:
            raise refused("PutObject", "PreconditionFailed", 412)
        if self.conditions and "IfMatch" in condition and (found is None or self._told(found) != condition["IfMatch"]):
            raise refused("PutObject", "PreconditionFailed" if found else "NoSuchKey", 412 if found else 404)
        self._stand()
        self.objects[Key] = Body
        if self.lose_answers:  # carried out; the client sends it again
            self.lose_answers -= 1
            raise refused("PutObject", "PreconditionFailed", 412)
        return {"ETag": etag(Body)}

    def _stand(self) -> None:
        """Where there is a gap, wait for a second writer that has looked, but not for long."""
        if self._two is not None:
            try:
                self._two.wait(0.3)
            except threading.BrokenBarrierError:
                self._two.reset()

    def delete_object(self, Bucket: str, Key: str) -> None:
        del self.objects[Key]

    def _told(self, content: bytes) -> str:
        return etag(content) if self.quotes else etag(content).strip('"')

    def get_paginator(self, operation: str) -> Any:
        outer = self

        class Pages:
            def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
                outer._maybe_fail("ListObjectsV2")
                keys = sorted(key for key in outer.objects if key.startswith(Prefix))
                return [{"Contents": [{"Key": key}]} for key in keys] or [{}]

        return Pages()

    def _maybe_fail(self, operation: str) -> None:
        error = self.fail(operation)
        if error is not None:
            raise error


def refused(operation: str, code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)


def etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


@pytest.fixture(params=["memory", "folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Each kind of store."""
    if request.param == "memory":
        return MemoryStore()
    return FolderStore(tmp_path / "journal") if request.param == "folder" else S3Store("s3://bucket/a/b/", Bucket())


def test_an_object_is_made_once_and_replaced_by_who_knows_it(store: Any) -> None:
    assert store.read("m/a") is None
    assert store.replace("m/a", b"0", "none") is None
    first = store.create("m/a", b"1")
    assert first is not None
    assert store.create("m/a", b"2") is None
    assert store.read("m/a") == (b"1", first)
    second = store.replace("m/a", b"2", first)
    assert second is not None
    assert store.replace("m/a", b"3", first) is None
    assert store.read("m/a") == (b"2", second)


def test_keys_are_listed_below_a_prefix_in_order(store: Any) -> None:
    for key in ("m/journal/2", "m/journal/1", "m/lease", "n/journal/1"):
        store.create(key, key.encode())
    assert store.list("m/journal/") == ["m/journal/1", "m/journal/2"]
    assert store.list("o/") == []


def test_of_many_threads_one_makes_an_object_and_no_replacement_is_lost(tmp_path: Path) -> None:
    store, made, counted = FolderStore(tmp_path), [], []

    def act(number: int) -> None:
        made.append(store.create("a", f"{number}".encode()))
        while True:
            found = store.read("count")
            assert found is not None
            if store.replace("count", f"{int(found.content) + 1}".encode(), found.etag):
                return

    store.create("count", b"0")
    threads = [threading.Thread(target=act, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = [one for one in made if one is not None]
    found = store.read("count")
    assert len(counted) == 1
    assert found is not None
    assert found.content == b"12"
    assert not list(tmp_path.glob(".a*"))


def test_a_write_whose_answer_was_lost_counts() -> None:
    bucket = Bucket()
    store = S3Store("s3://bucket/a", bucket)
    bucket.lose_answers = 1
    assert store.create("m", b"mine") == etag(b"mine")
    bucket.lose_answers = 1
    assert store.replace("m", b"mine again", etag(b"mine")) == etag(b"mine again")
    assert store.create("m", b"another's") is None


def test_a_server_that_ignores_conditions_is_refused() -> None:
    for quotes in (True, False):
        bucket = Bucket(quotes=quotes)
        store = S3Store("s3://bucket/a", bucket)
        store.check()
        assert bucket.objects == {}
        first = store.create("m", b"1")
        assert first is not None
        assert store.replace("m", b"2", first)
    with pytest.raises(BadParams, match="s3://bucket/a can hold no journal: the server ignores the conditions"):
        S3Store("s3://bucket/a", Bucket(conditions=False)).check()


def test_a_server_that_looks_and_writes_in_two_steps_is_refused() -> None:
    with pytest.raises(BadParams, match="s3://bucket/a can hold no journal: of writers at once"):
        S3Store("s3://bucket/a", Bucket(gap=True)).check()


def test_what_s3_says_has_a_sentence() -> None:
    bucket = Bucket()
    store = S3Store("s3://bucket/a", bucket)
    bucket.fail = lambda operation: EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    with pytest.raises(ServiceDown, match="The S3 server of the registry's journal s3://bucket/a does not answer"):
        store.read("m")
    bucket.fail = lambda operation: refused(operation, "AccessDenied", 403)
    with pytest.raises(BadParams, match="refuses the registry's journal s3://bucket/a: AccessDenied"):
        store.create("m", b"")
    busy = [refused("PutObject", "ConditionalRequestConflict", 409), None, None]
    bucket.fail = lambda operation: busy.pop(0) if operation == "PutObject" else None
    assert store.create("m", b"1") is not None


def test_a_journal_lies_beside_a_local_store_and_for_a_server_where_it_always_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded: list[str | None] = [None]
    monkeypatch.setattr(location, "_recorded", lambda name: recorded[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("CLINPROMPT_STORE", "s3://bucket/store/")
    assert location.address("m", None) == f"{tmp_path / 'mlflow.db'}.journal"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert location.address("m", None) == "s3://bucket/store/registry-journal"
    assert location.address("m", "s3://bucket/journal") == "s3://bucket/journal"
    recorded[0] = "s3://bucket/journal"
    with pytest.raises(BadParams, match="are in the journal s3://bucket/journal, and here s3://bucket/store/registry-"):
        location.address("m", None)
    monkeypatch.setenv("CLINPROMPT_JOURNAL", "s3://bucket/journal")
    assert location.address("m", None) == "s3://bucket/journal"
    monkeypatch.delenv("CLINPROMPT_JOURNAL")
    monkeypatch.delenv("CLINPROMPT_STORE")
    assert location.address("m", None) == "s3://bucket/journal"
    recorded[0] = None
    assert location.address("m", None) is None
    assert isinstance(store_at(None), MemoryStore)
    assert "no journal of its promotions is named (registry.journal in params.yaml)" in caplog.text


@pytest.mark.parametrize("where", ["s3://", "gs://bucket/a", "https://host/a"])
def test_an_address_that_can_hold_no_journal_is_refused(where: str) -> None:
    with pytest.raises(BadParams, match="is no place for a journal: write s3://bucket/prefix"):
        store_at(where)
