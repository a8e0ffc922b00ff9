"""Envelopes that came back, and those that can't be recorded as a whole.

A message that comes back may have killed the worker that had it. So its return is counted, and committed,
before it is touched; the third time it is halved, and halved again, down to the event that kills, which is
parked. The same halving finds the one event that Postgres refuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from billing.errors import EnvelopeBusy, Stopping, Unavailable
from billing.fingerprints import FINGERPRINT_VERSION, fingerprint
from billing.rating import Parking, ParkReason
from config.logging import logger
from config.settings import settings
from db import envelopes as rows
from db import usage as usage_rows
from db.session import Connection, in_transaction
from services.envelopes import Received, open_envelope
from services.preparing import context_of, parked_row, unusable
from services.usage import Outcome, park_inputs, record

log = logger(__name__)

#: An envelope is halved when it has been begun so often without being finished.
HALVED_AT = 3
#: An event on its own is parked after so many beginnings more: chance kills too, and is no reason to park.
ALONE_MAX = 4


@dataclass(slots=True)
class Delivery:
    """One delivery of an envelope, which may take several tries while the database is away."""

    envelope: bytes
    counted: dict[bytes, int] = field(default_factory=dict)

    def begin(self, digest: bytes, now: datetime) -> int:
        """Count this beginning once per delivery, however often the delivery is tried; how many there were."""
        if digest not in self.counted:
            self.counted[digest] = in_transaction(lambda c: rows.begin_attempt(c, digest, now))
        return self.counted[digest]


def record_redelivered(delivery: Delivery, now: datetime) -> Outcome:
    """Record an envelope that came back. Raises `EnvelopeBusy` while another worker has it."""
    digest = sha256(delivery.envelope).digest()
    if not in_transaction(lambda c: rows.hold(c, digest)):
        raise EnvelopeBusy
    try:
        attempts = delivery.begin(digest, now)
        opened = open_envelope(delivery.envelope, settings().envelope_bytes_max)
        if attempts < HALVED_AT:
            outcome = record(opened.received, opened.unusable, now)
        else:
            log.warning("envelope is halved", attempts=attempts, events=len(opened.received))
            outcome = record([], opened.unusable, now) + _isolate(delivery, opened.received, now)
        in_transaction(lambda c: rows.finish(c, digest))
    finally:
        _let_go(digest)
    return outcome


def record_one_by_one(envelope: bytes, now: datetime) -> Outcome:
    """Record what can be recorded of an envelope that failed as a whole; the rest is parked with the reason."""
    opened = open_envelope(envelope, settings().envelope_bytes_max)
    return record([], opened.unusable, now) + _record_or_halve(opened.received, now)


def _isolate(delivery: Delivery, events: Sequence[Received], now: datetime) -> Outcome:
    if not events:
        return Outcome()
    digest = sha256(b"\n".join(one.raw for one in events)).digest()
    attempts = delivery.begin(digest, now)
    if len(events) == 1 and attempts > ALONE_MAX:
        detail = f"a worker died {attempts - 1} times while it recorded this event alone"
        outcome = _park(events[0], Parking(ParkReason.KILLS_WORKER, detail), now)
    elif len(events) > 1 and attempts > 1:
        middle = len(events) // 2
        outcome = _isolate(delivery, events[:middle], now) + _isolate(delivery, events[middle:], now)
    else:
        outcome = _record_or_halve(events, now)
    in_transaction(lambda c: rows.finish(c, digest))
    return outcome


def _record_or_halve(events: Sequence[Received], now: datetime) -> Outcome:
    if not events:
        return Outcome()
    try:
        return record(events, [], now)
    except (Unavailable, Stopping):
        raise
    except Exception as error:
        if len(events) == 1:
            log.exception("event can't be recorded", key=events[0].event.key)
            return _park(events[0], Parking(ParkReason.UNRECORDABLE, f"{type(error).__name__}: {error}"), now)
    middle = len(events) // 2
    return _record_or_halve(events[:middle], now) + _record_or_halve(events[middle:], now)


def _park(one: Received, parking: Parking, now: datetime) -> Outcome:
    """As an event that owns its key; where even that can't be written, as the bytes it came as."""

    def as_event(connection: Connection) -> int:
        row = parked_row(one, parking, fingerprint(one.event))
        return len(usage_rows.insert_if_new(connection, [row], [context_of(one)], FINGERPRINT_VERSION, now))

    def as_bytes(connection: Connection) -> int:
        return park_inputs(connection, [unusable(one, parking.reason, parking.detail)], now)

    try:
        parked = in_transaction(as_event)
    except (Unavailable, Stopping):
        raise
    except Exception:
        log.exception("event can't be kept as one", key=one.event.key)
        parked = in_transaction(as_bytes)
    return Outcome(received=1, parked=parked)


def _let_go(digest: bytes) -> None:
    try:
        in_transaction(lambda c: rows.let_go(c, digest))
    except Unavailable:
        # The connection is gone, and the lock with it.
        return
