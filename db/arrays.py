"""Columns of values as Postgres' binary arrays, built in one pass.

Psycopg's own list dumper makes a call for each element, of which an event has some forty; these know the type
of the column beforehand, in half the time. And an array that is built is bytes: what a statement under a lock
needs can be built before the lock is taken. The layout is that of `array_recv` in the server's sources:
dimensions, a flag for NULLs, the element's type, then length and bytes of each.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import adapters
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_HEAD = struct.Struct("!iiIii")
_NULL = b"\xff\xff\xff\xff"
_LENGTHS = [struct.pack("!i", length) for length in range(1024)]
_BIGINT = struct.Struct("!q")
_length = struct.Struct("!i").pack
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TEXT, _BYTEA, _INT8, _BOOL, _TIMESTAMPTZ = 25, 17, 20, 16, 1184


class _Array(bytes):
    """An array as it travels."""

    __slots__ = ()


class TextArray(_Array):
    """`text[]`"""


class ByteaArray(_Array):
    """`bytea[]`"""


class BigintArray(_Array):
    """`bigint[]`"""


class BooleanArray(_Array):
    """`boolean[]`"""


class MomentArray(_Array):
    """`timestamptz[]`"""


def texts(values: Sequence[str | None]) -> TextArray:
    """A column of text; None is NULL."""
    return TextArray(_packed(_TEXT, [None if value is None else value.encode() for value in values]))


def byteas(values: Sequence[bytes]) -> ByteaArray:
    """A column of bytes."""
    return ByteaArray(_packed(_BYTEA, values))


def bigints(values: Sequence[int]) -> BigintArray:
    """A column of whole numbers of 64 bits. Raises `struct.error` for a larger one."""
    return BigintArray(_fixed(_INT8, "iq", 8, values))


def booleans(values: Sequence[bool]) -> BooleanArray:
    """A column of truths."""
    return BooleanArray(_fixed(_BOOL, "i?", 1, values))


def numerics(values: Sequence[Decimal]) -> TextArray:
    """A column of exact numbers, as text: the statement casts it to `numeric`.

    Psycopg's binary dumper takes 0.75 µs a number, its text 0.12 µs; the server reads either as fast.
    """
    return texts([str(value) for value in values])


def moments(values: Sequence[datetime]) -> MomentArray:
    """A column of moments, kept to the microsecond."""
    return MomentArray(_fixed(_TIMESTAMPTZ, "iq", 8, [(value - _EPOCH) // _MICROSECOND for value in values]))


def optional_moments(values: Sequence[datetime | None]) -> MomentArray:
    """A column of moments; None is NULL."""
    pack = _BIGINT.pack
    return MomentArray(
        _packed(_TIMESTAMPTZ, [None if v is None else pack((v - _EPOCH) // _MICROSECOND) for v in values])
    )


def _fixed(element: int, layout: str, size: int, values: Sequence[int]) -> bytes:
    if not values:
        return _HEAD.pack(0, 0, element, 0, 1)[:12]
    sized: list[int] = [size] * (2 * len(values))
    sized[1::2] = values
    return _HEAD.pack(1, 0, element, len(values), 1) + struct.pack("!" + layout * len(values), *sized)


def _packed(element: int, values: Iterable[Buffer | None]) -> bytes:
    pieces: list[Any] = [b""]
    append = pieces.append
    has_null = 0
    number = 0
    for value in values:
        number += 1
        if value is None:
            has_null = 1
            append(_NULL)
            continue
        size = len(value)
        append(_LENGTHS[size] if size < 1024 else _length(size))
        append(value)
    if not number:
        return _HEAD.pack(0, 0, element, 0, 1)[:12]
    pieces[0] = _HEAD.pack(1, has_null, element, number, 1)
    return b"".join(pieces)


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer | None:
        array: bytes = obj
        return array


def _register(array: type[_Array], name: str) -> None:
    info = psycopg.adapters.types[name]
    dumper = type(f"{array.__name__}Dumper", (_ArrayDumper,), {"oid": info.array_oid})
    adapters.register_dumper(array, dumper)


for _array, _name in (
    (TextArray, "text"),
    (ByteaArray, "bytea"),
    (BigintArray, "int8"),
    (BooleanArray, "bool"),
    (MomentArray, "timestamptz"),
):
    _register(_array, _name)
