"""A statement as JSON: what the API gives, and what is kept. Its names are API."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from billing.errors import BrokenInvariant
from billing.money import written
from billing.statements import Statement

VERSION = 1
"""Counts up when a name changes its meaning or goes; a new name alone is no new version."""


def as_json(statement: Statement) -> dict[str, Any]:
    """All of the statement: decimals as texts, moments in UTC. `from_json` gives the same value back.

    Raises `BrokenInvariant` if `about` or `reference` of a line hold what JSON can't give back as it was.
    """
    for line in statement.lines:
        if not (_is_kept(line.about) and _is_kept(line.reference)):
            raise BrokenInvariant(f"statement {statement.number}: line {line.number} is about more than JSON can keep")
    builtins = msgspec.to_builtins(statement, builtin_types=(Decimal, datetime))
    return {"version": VERSION, **_plain(builtins)}


def from_json(document: dict[str, Any]) -> Statement:
    """The statement that `as_json` made the document of. Raises `BrokenInvariant` for any other document."""
    if document.get("version") != VERSION:
        raise BrokenInvariant(f"a statement of version {document.get('version')!r} can't be read, only of {VERSION}")
    try:
        return msgspec.convert(document, Statement)
    except msgspec.ValidationError as invalid:
        raise BrokenInvariant(f"this is no statement: {invalid}") from invalid


def _is_kept(value: Any) -> bool:
    match value:
        case None | str() | int():  # truth values are whole numbers to Python
            return True
        case list():
            return all(_is_kept(one) for one in value)
        case dict():
            return all(isinstance(name, str) and _is_kept(one) for name, one in value.items())
    return False


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return written(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    return value
