"""What was emitted, by the producers' own logs. Imports nothing of the project.

An event that `emit` took into a journal on disk, or that a producer in memory flushed, must be found again. The last
line of a producer that was killed leaves open whether `emit` had returned: that event may be there or not.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from chaos.world import as_utc

Key = tuple[str, str]
"""tenant, key"""
Item = tuple[str, str, str, str, Decimal]
"""category, provider, model, unit, quantity"""


class Context(NamedTuple):
    """By whom and for what: what decides in which quotas an event counts, and which hold it captures."""

    user_id: str | None = None
    organization_id: str | None = None
    service_type: str | None = None
    feature: str | None = None
    hold_id: str | None = None


class Content(NamedTuple):
    """What an event says was used: two of the same key and content are one."""

    tenant_id: str
    customer_id: str
    occurred_at: datetime
    items: tuple[Item, ...]
    context: Context = Context()

    @property
    def identity(self) -> tuple[Any, ...]:
        """Items in any order are the same."""
        return self.customer_id, self.occurred_at, sorted(self.items)


@dataclass(slots=True)
class Variant:
    """One payload under a key; the bytes it travelled as, and when it was emitted first and last."""

    content: Content
    wire: bytes
    is_required: bool = False
    first_at: float = 0.0
    last_at: float = 0.0
    times: int = 0


@dataclass(slots=True)
class Emitted:
    """All that producers said, sorted."""

    events: dict[Key, list[Variant]] = field(default_factory=dict)
    spoiled: dict[bytes, bool] = field(default_factory=dict)
    """bytes that are no event: whether they must be found"""
    lines: int = 0
    undecided: int = 0

    def add(self, wire: bytes, at: float, *, is_required: bool) -> None:
        """Take one line of a log."""
        self.lines += 1
        self.undecided += not is_required
        known = _known(json.loads(wire, parse_float=Decimal))
        if known is None:
            self.spoiled[wire] = self.spoiled.get(wire, False) or is_required
            return
        key, content = known
        variants = self.events.setdefault(key, [])
        variant = next((one for one in variants if one.content == content), None)
        if variant is None:
            variant = Variant(content, wire, first_at=at)
            variants.append(variant)
        variant.is_required |= is_required
        variant.first_at = min(variant.first_at, at)
        variant.last_at = at
        variant.times += 1

    @property
    def duplicates(self) -> int:
        """How many events were emitted that had been before."""
        return self.lines - sum(map(len, self.events.values())) - len(self.spoiled)


def read_logs(journaled: Iterable[Path], in_memory: Iterable[Path]) -> Emitted:
    """What the logs of all producers say."""
    emitted = Emitted()
    for paths, is_durable in ((journaled, True), (in_memory, False)):
        for path in paths:
            _read_log(emitted, path.read_bytes(), is_durable=is_durable)
    return emitted


def _read_log(emitted: Emitted, log: bytes, *, is_durable: bool) -> None:
    lines = log.split(b"\n")
    flushed = max((number for number, line in enumerate(lines) if line == b"F"), default=-1)
    last = len(lines) - 2 if not lines[-1] else len(lines) - 1
    for number, line in enumerate(lines):
        if line[:2] != b"E ":
            continue
        head, _, wire = line[2:].partition(b" ")
        is_whole = number < len(lines) - 1
        if not is_whole:
            continue  # the kill came while it was written, so before `emit`
        emitted.add(wire, float(head), is_required=number < last if is_durable else number < flushed)


def _known(fields: dict[str, Any]) -> tuple[Key, Content] | None:
    """Key and content of what is an event; the stream spoils some by a field that is not there, or a number below 0."""
    if "colour" in fields or any(Decimal(item["quantity"]) < 0 for item in fields["items"]):
        return None
    items = tuple(as_item(item) for item in fields["items"])
    context = Context(*(fields.get(name) for name in Context._fields))
    content = Content(fields["tenant_id"], fields["customer_id"], as_utc(fields["occurred_at"]), items, context)
    return (fields["tenant_id"], fields["key"]), content


def as_item(fields: dict[str, Any]) -> Item:
    """An item, from an event's JSON."""
    return (
        fields["category"],
        fields["provider"],
        fields["model"],
        fields["unit"],
        Decimal(str(fields["quantity"])),
    )


def hash_of(wire: bytes) -> bytes:
    """The name under which parked bytes are kept."""
    return sha256(wire).digest()
