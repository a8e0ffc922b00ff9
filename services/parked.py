"""What is parked: looking at it, and trying it again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.charging import Charge
from billing.errors import ParkedNotFound, Rejected
from billing.rating import Parking, ParkReason
from centavo import UsageEvent
from config.logging import logger
from config.settings import settings
from db import parked as rows
from db.parked import ParkedInput, ParkedRow
from db.session import Connection, in_transaction
from db.usage import CONTEXT_COLUMNS
from services.envelopes import Received, open_envelope
from services.posting import lock_wallets, post
from services.preparing import items_as_json, prepare
from services.usage import Outcome, record

log = logger(__name__)

#: Reasons that are about the event and the moment it came; a person who asks for it by name may overrule them.
BY_HAND = frozenset({ParkReason.IMPLAUSIBLE, ParkReason.TOO_OLD})
#: Replaying these would say the same again.
FINAL = frozenset({ParkReason.KEY_CONFLICT})
PAGE = 500


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of what was tried again."""

    tried: int = 0
    charged: int = 0
    still_parked: int = 0


def waiting(reason: str | None = None, tenant_id: str | None = None, limit: int = 100) -> list[ParkedRow]:
    """What is parked, oldest first."""
    return in_transaction(lambda c: rows.waiting(c, reason=reason, tenant_id=tenant_id, limit=limit))


def show(parked_id: str) -> dict[str, Any]:
    """Everything that is kept of something parked. Raises `ParkedNotFound`."""

    def work(connection: Connection) -> dict[str, Any]:
        found = _find(connection, parked_id)
        if isinstance(found, ParkedInput):
            return {
                **found._asdict(),
                "raw": found.raw.decode("utf-8", "replace"),
                "input_hash": found.input_hash.hex(),
            }
        return found

    return in_transaction(work)


def replay(parked_id: str, now: datetime) -> Replayed:
    """Try one parked thing again, by its id: a person has looked, so bounds on size and age are waived.

    It is charged at most once, however often this runs. Raises `ParkedNotFound`.
    """
    found = in_transaction(lambda c: _find(c, parked_id))
    if isinstance(found, ParkedInput):
        return _replay_input(found, now)
    return _replay_event(found["tenant_id"], found["key"], now, is_by_hand=True)


def replay_all(
    now: datetime,
    *,
    reason: str | None = None,
    tenant_id: str | None = None,
    on_progress: Callable[[Replayed], None] = lambda _: None,
) -> Replayed:
    """Try everything again that may go now, but for what a person must look at first."""
    total = Replayed()
    seen: set[str] = set()
    while fresh := [one for one in _page(reason, tenant_id, len(seen)) if one.parked_id not in seen]:
        for one in fresh:
            seen.add(one.parked_id)
            if one.reason in BY_HAND | FINAL:
                continue
            total = _sum(total, _replay_row(one, now))
            on_progress(total)
    log.info("parked replayed", tried=total.tried, charged=total.charged, still_parked=total.still_parked)
    return total


def _page(reason: str | None, tenant_id: str | None, seen: int) -> Sequence[ParkedRow]:
    return waiting(reason, tenant_id, limit=seen + PAGE)


def _replay_row(row: ParkedRow, now: datetime) -> Replayed:
    if row.kind == "event":
        assert row.tenant_id is not None
        assert row.key is not None
        return _replay_event(row.tenant_id, row.key, now, is_by_hand=False)
    try:
        found = in_transaction(lambda c: _find(c, row.parked_id))
    except ParkedNotFound:
        return Replayed()
    assert isinstance(found, ParkedInput)
    return _replay_input(found, now)


def _find(connection: Connection, parked_id: str) -> ParkedInput | dict[str, Any]:
    kind, _, name = parked_id.partition(":")
    if kind == "input" and name:
        inputs = rows.find_input(connection, name.lower())
        if len(inputs) > 1:
            raise Rejected(f"more than one parked input begins with {name}; give more of it")
        if inputs:
            return inputs[0]
    if kind == "event" and "/" in name:
        tenant_id, _, key = name.partition("/")
        event = rows.find_event(connection, tenant_id, key)
        if event is not None:
            return event
    raise ParkedNotFound(parked_id=parked_id)


def _replay_input(found: ParkedInput, now: datetime) -> Replayed:
    """Bytes go the way of any envelope again; what still can't be read stays as it is."""
    raw = found.raw if found.reason == ParkReason.ENVELOPE_MALFORMED else _in_envelope(found.raw)
    opened = open_envelope(raw, settings().envelope_bytes_max)
    if not opened.received:
        return Replayed(tried=1, still_parked=1)
    outcome: Outcome = record(opened.received, [], now)
    if not outcome.charged + outcome.duplicates:
        return Replayed(tried=1, still_parked=1)
    in_transaction(lambda c: rows.mark_replayed(c, found.input_hash, now))
    return Replayed(tried=1, charged=1)


def _in_envelope(event: bytes) -> bytes:
    return b'{"v":1,"events":[' + event + b"]}"


def _replay_event(tenant_id: str, key: str, now: datetime, *, is_by_hand: bool) -> Replayed:
    """An event that has its row: rate it now; if it can be charged, its row becomes a charged one."""
    return in_transaction(lambda c: _charge_parked(c, tenant_id, key, now, is_by_hand=is_by_hand))


def _charge_parked(connection: Connection, tenant_id: str, key: str, now: datetime, *, is_by_hand: bool) -> Replayed:
    found = rows.find_event(connection, tenant_id, key)
    if found is None:
        return Replayed()
    event = event_of(found)
    bounds = None if is_by_hand else settings().bounds
    prepared = prepare(connection, [Received(event, event.to_wire())], now, bounds)
    if not prepared.charges:
        row = prepared.rows[0]
        parking = Parking(ParkReason(row.park_reason or ""), row.park_detail or "")
        rows.park_again(connection, tenant_id, key, parking.reason, parking.detail)
        return Replayed(tried=1, still_parked=1)
    charge = prepared.charges[0]

    lock_wallets(connection, [charge])
    if rows.lock_event(connection, tenant_id, key) is None:
        return Replayed()  # somebody else was first

    rows.unpark(connection, _charged(charge, now))
    post(connection, [charge], now)
    return Replayed(tried=1, charged=1)


def event_of(row: dict[str, Any]) -> UsageEvent:
    """The event that a row of `usage_events` was made from; the row as JSON."""
    items = [
        {name: item[name] for name in ("category", "provider", "model", "unit", "quantity")} for item in row["items"]
    ]
    context = {name: row[name] for name in (*CONTEXT_COLUMNS, "metadata") if row.get(name) is not None}
    identity = {name: row[name] for name in ("tenant_id", "customer_id", "key", "occurred_at")}
    return UsageEvent.from_wire(json.loads(json.dumps({**identity, **context, "items": items}), parse_float=Decimal))


def _charged(charge: Charge, now: datetime) -> dict[str, Any]:
    return {
        "tenant_id": charge.event.tenant_id,
        "key": charge.event.key,
        "now": now,
        "period_start": charge.tally.period.starts_at,
        "is_late": charge.is_late,
        "tokens": charge.rated.tokens,
        "cost": charge.rated.cost,
        "currency": charge.rated.currency,
        "items": items_as_json(charge.rated.lines),
    }


def _sum(left: Replayed, right: Replayed) -> Replayed:
    return Replayed(left.tried + right.tried, left.charged + right.charged, left.still_parked + right.still_parked)
