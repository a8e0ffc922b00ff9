"""What is parked: looking at it, and trying it again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from billing.errors import BrokenInvariant, DatabaseBusy, DatabaseSlow, ParkedNotFound, Rejected, Unavailable
from billing.events import EventStep
from billing.rating import Bounds, ParkReason
from config.logging import logger
from config.settings import settings
from db import parked as rows
from db import trail as trail_rows
from db.parked import KeptInput, ParkedRow
from db.session import LOCK_TRIES_OF_PARTS, TRIES, Connection, in_transaction
from db.trail import Entry
from services.metering import kept
from services.metering.envelopes import Opened, Received, open_envelope, read_events
from services.metering.kept import EventRow
from services.metering.preparing import prepare
from services.metering.usage import record

log = logger(__name__)

#: A person must look first: what is out of bounds, and what would kill the process that replays.
BY_HAND = frozenset({ParkReason.IMPLAUSIBLE, ParkReason.TOO_OLD, ParkReason.PERIOD_CLOSED, ParkReason.KILLS_WORKER})
#: Replaying these would say the same again.
FINAL = frozenset({ParkReason.KEY_CONFLICT})
#: What is kept under these may be an envelope.
OF_ENVELOPES = frozenset({ParkReason.ENVELOPE_MALFORMED, ParkReason.KILLS_WORKER, ParkReason.UNRECORDABLE})
PAGE = 500


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of what was tried again: things that were tried, events that were charged, and the rest."""

    tried: int = 0
    charged: int = 0
    still_parked: int = 0

    def __add__(self, other: "Replayed") -> "Replayed":
        return Replayed(self.tried + other.tried, self.charged + other.charged, self.still_parked + other.still_parked)


STILL_PARKED = Replayed(tried=1, still_parked=1)


def waiting(reason: str | None = None, tenant_id: str | None = None, limit: int = 100) -> list[ParkedRow]:
    """What is parked, oldest first."""
    return in_transaction(lambda c: rows.waiting(c, reason=reason, tenant_id=tenant_id, limit=limit))


def show(parked_id: str) -> dict[str, Any]:
    """Everything that is kept of something parked. Raises `ParkedNotFound`."""
    found = in_transaction(lambda c: _find(c, parked_id))
    if isinstance(found, KeptInput):
        return {
            **found._asdict(),
            "raw": found.raw.decode("utf-8", "replace"),
            "input_hash": found.input_hash.hex(),
        }
    return found


def replay(parked_id: str, now: datetime) -> Replayed:
    """Try one parked thing again, by its id: a person has looked, so bounds on size and age are waived.

    It is charged at most once, however often this runs. Raises `ParkedNotFound`, and `Rejected` when the
    database refuses it, with the cause.
    """
    found = in_transaction(lambda c: _find(c, parked_id))
    try:
        if isinstance(found, KeptInput):
            return _replay_input(found, now)
        return _replay_event(found["tenant_id"], found["key"], now, is_by_hand=True)
    except (Unavailable, Rejected, BrokenInvariant, MemoryError):
        raise
    except Exception as error:
        raise Rejected(f"it can't be recorded ({error}), and stays parked", parked_id=parked_id) from error


def replay_all(
    now: datetime,
    *,
    reason: str | None = None,
    tenant_id: str | None = None,
    on_progress: Callable[[Replayed], None] = lambda _: None,
) -> Replayed:
    """Try everything again that may go now, but for what a person must look at first.

    What can't be recorded at all stays parked, and costs the others nothing; so does what is of a customer who is held.
    """
    total = Replayed()
    for one in _each(reason, tenant_id, now):
        if one.reason not in BY_HAND | FINAL:
            total += _replay_row(one, now)
            on_progress(total)
    log.info("parked replayed", tried=total.tried, charged=total.charged, still_parked=total.still_parked)
    return total


def _each(reason: str | None, tenant_id: str | None, now: datetime) -> Iterator[ParkedRow]:
    """All that was parked before now, each once, page by page.

    Neither what a replay takes from a page nor what it parks anew moves the next one.
    """
    last: ParkedRow | None = None
    while page := [row for row in _page(reason, tenant_id, last) if row.parked_at < now]:
        yield from page
        last = page[-1]


def _page(reason: str | None, tenant_id: str | None, after: ParkedRow | None) -> list[ParkedRow]:
    return in_transaction(lambda c: rows.waiting(c, reason=reason, tenant_id=tenant_id, limit=PAGE, after=after))


def replay_waiting(tenant_id: str, key: str, now: datetime) -> Replayed:
    """Try an event that is parked; what can't be recorded stays parked, and what waits no more is left alone."""
    try:
        return _replay_event(tenant_id, key, now, is_by_hand=False)
    except (Unavailable, MemoryError):
        raise
    except Exception:
        log.exception("replay failed", tenant_id=tenant_id, key=key)
        return STILL_PARKED


def _replay_row(row: ParkedRow, now: datetime) -> Replayed:
    try:
        found = in_transaction(lambda c: _find(c, row.parked_id))
        if isinstance(found, KeptInput):
            return _replay_input(found, now)
        return replay_waiting(found["tenant_id"], found["key"], now)
    except ParkedNotFound:
        return Replayed()  # somebody else was first
    except (DatabaseBusy, DatabaseSlow) as error:
        log.warning("it can't be replayed now", parked_id=row.parked_id, error=str(error))
        return STILL_PARKED
    except (Unavailable, MemoryError):
        raise
    except Exception:
        log.exception("replay failed", parked_id=row.parked_id)
        return STILL_PARKED


def _find(connection: Connection, parked_id: str) -> KeptInput | EventRow:
    kind, _, name = parked_id.partition(":")
    found: list[KeptInput] | list[EventRow] = []
    if kind == "input" and name and set(name.lower()) <= set("0123456789abcdef"):
        found = rows.find_input(connection, name.lower())
    if kind == "event":
        found = [event for identity in _splits(name) if (event := rows.find_event(connection, *identity))]
    if not found:
        raise ParkedNotFound(parked_id=parked_id)
    if len(found) > 1:
        raise Rejected("more than one parked thing goes by this id; give more of it", parked_id=parked_id)
    return found[0]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Tenant and key, wherever the slash between them may be: both may have slashes of their own."""
    parts = name.split("/")
    for place in range(1, len(parts)):
        yield "/".join(parts[:place]), "/".join(parts[place:])


def _replay_input(found: KeptInput, now: datetime) -> Replayed:
    """Bytes go the way of any envelope again; what still can't be read stays as it is.

    They have been taken in when each event has a row of its own, be it a parked one. An event that is refused
    as before (no such customer, a conflict) is kept under the very same hash, so the input stays.
    """
    opened = _opened(found)
    if not opened.received:
        return STILL_PARKED
    outcome = record(opened.received, opened.unusable, now)
    is_one_event = opened.received[0].raw == found.raw
    if is_one_event and not outcome.charged + outcome.duplicates + outcome.parked:
        return STILL_PARKED
    in_transaction(lambda c: rows.mark_replayed(c, found.input_hash, now))
    return Replayed(tried=1, charged=outcome.charged, still_parked=outcome.parked)


def _opened(found: KeptInput) -> Opened:
    opened = read_events([found.raw])
    if opened.received or found.reason not in OF_ENVELOPES:
        return opened
    return open_envelope(found.raw, settings().envelope_bytes_max)


def _replay_event(tenant_id: str, key: str, now: datetime, *, is_by_hand: bool) -> Replayed:
    """An event that has its row: rate it now; if it can be charged, its row becomes a charged one."""
    lock_tries = TRIES if is_by_hand else LOCK_TRIES_OF_PARTS
    return in_transaction(
        lambda c: _charge_parked(c, tenant_id, key, now, is_by_hand=is_by_hand), lock_tries=lock_tries
    )


def _charge_parked(connection: Connection, tenant_id: str, key: str, now: datetime, *, is_by_hand: bool) -> Replayed:
    found = rows.find_event(connection, tenant_id, key)
    if found is None:
        return Replayed()  # somebody else was first
    event = kept.event_of(found)
    bounds = None if is_by_hand else _bounds_at(found, now)
    prepared = prepare(connection, [Received(event, event.to_wire())], now, bounds)
    if not prepared.charges:
        row = prepared.rows[0]
        rows.park_again(connection, tenant_id, key, row.park_reason or "", row.park_detail or "")
        return STILL_PARKED
    is_deferred = any(step.step == EventStep.DEFERRED for step in trail_rows.of_event(connection, tenant_id, key))
    if is_deferred:
        is_first = kept.defer_waiting(connection, prepared.charges[0], now)
    else:
        is_first = kept.charge_waiting(connection, prepared.charges[0], "parked", now)
    if not is_first:
        return Replayed()  # somebody else was first
    detail = f"{found['park_reason']}: {found['park_detail']}"
    trail_rows.add(connection, Entry(tenant_id, key, found["customer_id"], EventStep.REPLAYED, detail, now))
    return Replayed(tried=1, charged=0 if is_deferred else 1)


def _bounds_at(found: EventRow, now: datetime) -> Bounds:
    """The bounds as they stood when the event came: while it waits here it does not grow too old."""
    bounds = settings().bounds
    waited = now - datetime.fromisoformat(found["recorded_at"])
    return replace(bounds, age_max=bounds.age_max + waited)
