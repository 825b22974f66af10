"""Directories of tags, as TIFF files and EXIF blocks hold them: read with bounded work, and written anew.

A file's directories can point at themselves, promise more values than the file has bytes, or run into the thousands;
what is read here costs at most as much as the limits below say.
"""

import struct
from dataclasses import dataclass
from typing import Any

_MOST_ENTRIES = 200_000  # of all directories together
_CLASSIC, _BIG = 42, 43
_TYPES = {  # TIFF's number of a type -> its code in struct
    1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I",
    16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_SIZES = {kind: struct.calcsize(code) for kind, code in _TYPES.items()} | {5: 8, 10: 8}  # 5, 10: fractions
SHORT, LONG = 3, 4


@dataclass(frozen=True)
class Entry:
    """The values of a tag: TIFF's number of their type, how many there are, and their bytes."""

    kind: int
    count: int
    raw: bytes


@dataclass(frozen=True)
class Directory:
    """The tags of one image.

    Attributes:
        order: "<" or ">", of the bytes.
        places: tag -> TIFF's number of its values' type, how many there are, and where in `data` they begin. Tags whose
            values lie outside the file are not there.
    """

    data: bytes
    order: str
    places: dict[int, tuple[int, int, int]]

    def entry(self, tag: int) -> Entry | None:
        """The values of a tag as they lie in the file; None where there is no such tag."""
        if tag not in self.places:
            return None
        kind, count, start = self.places[tag]
        return Entry(kind, count, self.data[start : start + count * _SIZES[kind]])

    def numbers(self, tag: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """The whole numbers of a tag.

        Raises:
            ValueError: there is no such tag and no default, or it holds something else.
        """
        entry = self.entry(tag)
        if entry is None:
            if default is None:
                raise ValueError(f"broken TIFF directory (the tag {tag} is missing)")
            return default
        code = _TYPES.get(entry.kind, "f")
        if code in "fd" or not entry.count:
            raise ValueError(f"broken TIFF directory (the tag {tag} holds no whole numbers)")
        return struct.unpack(f"{self.order}{entry.count}{code}", entry.raw)

    def number(self, tag: int, default: int | None = None) -> int:
        """The first of a tag's whole numbers; ValueError as of `numbers`."""
        return self.numbers(tag, None if default is None else (default,))[0]


def read_directories(data: bytes, most: int) -> list[Directory]:
    """The chain of directories that begins in the header.

    Raises:
        ValueError: no such header, a directory outside the file or one that comes twice, more than `most` directories,
            or more tags than any image has.
    """
    order, offset, big = _header(data)
    count_code, entry_code, next_code = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    entry_size, inline = struct.calcsize(f"{order}{entry_code}"), 8 if big else 4
    found: list[Directory] = []
    visited: set[int] = set()
    entries_left = _MOST_ENTRIES
    while offset:
        if offset in visited:
            raise ValueError("broken TIFF (its directories point at themselves)")
        if len(found) == most:
            return found
        visited.add(offset)
        [count] = _unpack(f"{order}{count_code}", data, offset)
        start = offset + struct.calcsize(f"{order}{count_code}")
        entries_left -= count
        if entries_left < 0 or start + count * entry_size > len(data):
            raise ValueError("broken TIFF (a directory is longer than the file, or than any image's)")
        listed = struct.iter_unpack(f"{order}{entry_code}", data[start : start + count * entry_size])
        places = {}
        for number, (tag, kind, values, value) in enumerate(listed, 1):
            size = _SIZES.get(kind, 0) * values
            place = start + number * entry_size - inline if size <= inline else value
            if 0 < size <= len(data) - place:
                places[tag] = kind, values, place
        found.append(Directory(data, order, places))
        after = start + count * entry_size
        [offset] = _unpack(f"{order}{next_code}", data, after) if len(data) > after else (0,)
    return found


def with_directory(data: bytes, order: str, entries: dict[int, Entry]) -> bytes:
    """The TIFF file with one directory, the given one, and its old bytes where they were."""
    if len(data) >= 2**31:
        raise ValueError("a TIFF of more than 2 GB, which is not read")
    body = bytearray(data) + bytes(len(data) % 2)
    listed = []
    for tag, entry in sorted(entries.items(), key=lambda item: item[0]):
        value = entry.raw.ljust(4, b"\0")
        if len(value) > 4:
            value = struct.pack(f"{order}I", len(body))
            body += entry.raw + bytes(len(entry.raw) % 2)
        listed.append(struct.pack(f"{order}HHI4s", tag, entry.kind, entry.count, value))
    body[:8] = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", _CLASSIC, len(body))
    return bytes(body + struct.pack(f"{order}H", len(listed)) + b"".join(listed) + bytes(4))


def whole_numbers(order: str, values: tuple[int, ...], kind: int = LONG) -> Entry:
    """An entry of whole numbers."""
    return Entry(kind, len(values), struct.pack(f"{order}{len(values)}{_TYPES[kind]}", *values))


def _header(data: bytes) -> tuple[str, int, bool]:
    """Byte order, offset of the first directory, and whether the file is a BigTIFF."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise ValueError("broken TIFF (no byte order in its header)")
    [version] = _unpack(f"{order}H", data, 2)
    if version == _BIG:
        return order, _unpack(f"{order}Q", data, 8)[0], True
    return order, _unpack(f"{order}I", data, 4)[0], False


def _unpack(code: str, data: bytes, offset: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(code, data, offset)
    except (struct.error, OverflowError):
        raise ValueError("broken TIFF (a directory lies outside the file)") from None
