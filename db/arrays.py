"""Columns of values as Postgres' binary arrays, built in one pass.

Psycopg's own list dumper makes a call for each element, of which an event has some forty; these know the type
of the column beforehand, in half the time. And an array that is built is bytes: what a statement under a lock
needs can be built before the lock is taken. The layout is that of `array_recv` in the server's sources:
dimensions, a flag for NULLs, the element's type, then length and bytes of each.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
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
_EPOCH_DAY = _EPOCH.toordinal()
_TEXT, _BYTEA, _INT8, _BOOL, _DATE, _TIMESTAMPTZ = 25, 17, 20, 16, 1082, 1184


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


class DateArray(_Array):
    """`date[]`"""


class MomentArray(_Array):
    """`timestamptz[]`"""


def texts(values: Sequence[str | None]) -> TextArray:
    """A column of text; None is NULL."""
    if _are_all_one(values):
        value = values[0]
        return TextArray(_repeated(_TEXT, None if value is None else value.encode(), len(values)))
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


def dates(values: Sequence[date]) -> DateArray:
    """A column of days."""
    return DateArray(_fixed(_DATE, "ii", 4, [value.toordinal() - _EPOCH_DAY for value in values]))


def moments(values: Sequence[datetime]) -> MomentArray:
    """A column of moments, kept to the microsecond."""
    return MomentArray(_fixed(_TIMESTAMPTZ, "iq", 8, [(value - _EPOCH) // _MICROSECOND for value in values]))


def optional_moments(values: Sequence[datetime | None]) -> MomentArray:
    """A column of moments; None is NULL."""
    if _are_all_one(values):
        return MomentArray(_repeated(_TIMESTAMPTZ, _as_moment(values[0]), len(values)))
    return MomentArray(_packed(_TIMESTAMPTZ, [_as_moment(value) for value in values]))


def _as_moment(value: datetime | None) -> bytes | None:
    return None if value is None else _BIGINT.pack((value - _EPOCH) // _MICROSECOND)


def _are_all_one(values: Sequence[object]) -> bool:
    """Whether a column says the same in every row, as that of the tenant mostly does."""
    return bool(values) and values.count(values[0]) == len(values)


def _repeated(element: int, value: bytes | None, times: int) -> bytes:
    one = _NULL if value is None else _length(len(value)) + value
    return _HEAD.pack(1, value is None, element, times, 1) + one * times


def _fixed(element: int, layout: str, size: int, values: Sequence[int]) -> bytes:
    if not values:
        return _HEAD.pack(0, 0, element, 0, 1)[:12]
    sized: list[int] = [size] * (2 * len(values))
    sized[1::2] = values
    return _HEAD.pack(1, 0, element, len(values), 1) + struct.pack("!" + layout * len(values), *sized)


def _packed(element: int, values: Sequence[bytes | None]) -> bytes:
    if not values:
        return _HEAD.pack(0, 0, element, 0, 1)[:12]
    pieces: list[bytes] = []
    for value in values:
        if value is None:
            pieces.append(_NULL)
        else:
            size = len(value)
            pieces += (_LENGTHS[size] if size < 1024 else _length(size), value)
    return _HEAD.pack(1, None in values, element, len(values), 1) + b"".join(pieces)


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
    (DateArray, "date"),
    (MomentArray, "timestamptz"),
):
    _register(_array, _name)
