"""Envelopes that came back, and those that can't be recorded as a whole.

A message that comes back may have killed the worker that had it. So its return is counted, and committed,
before it is touched; the third time it is halved, and halved again, down to the event that kills, which is
parked. The same halving finds the one event that Postgres refuses.

Nothing is read before its beginning was counted: reading, too, can be what kills.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from billing.errors import EnvelopeBusy, EnvelopeMalformed, EventMalformed, Stopping, Unavailable
from billing.fingerprints import FINGERPRINT_VERSION, fingerprint
from billing.rating import Parking, ParkReason
from config.logging import logger
from config.settings import settings
from db import envelopes as rows
from db import usage as usage_rows
from db.session import Connection, in_transaction
from services.metering.envelopes import Received, Unusable, read_event, read_events
from services.metering.preparing import context_of, parked_row, unusable
from services.metering.splitting import split_envelope
from services.metering.usage import Outcome, park_inputs, record
from services.showing import readable

log = logger(__name__)

#: An envelope is halved when it has been begun so often without being finished.
HALVED_AT = 3
#: What can't be halved is parked after so many beginnings more: chance kills too, and is no reason to park.
ALONE_MAX = 4
#: Parking an event reads it once more; where that kills as well, it is parked unread.
READ_MAX = 6

# A child that is out of memory leaves, and the envelope comes back to a fresh one: no reason to park anything yet.
_NOT_THE_INPUT = (Unavailable, Stopping, MemoryError)


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

    def survived(self) -> None:
        """Forget what was counted: nothing was finished, and nobody died of it."""

        def finish(connection: Connection) -> None:
            for digest in sorted(self.counted):
                rows.finish(connection, digest)

        in_transaction(finish)
        self.counted.clear()


def record_redelivered(delivery: Delivery, now: datetime) -> Outcome:
    """Record an envelope that came back. Raises `EnvelopeBusy` while another worker has it."""
    digest = _digest(delivery.envelope)
    if not in_transaction(lambda c: rows.hold(c, digest)):
        raise EnvelopeBusy
    try:
        attempts = delivery.begin(digest, now)
        if attempts < HALVED_AT:
            outcome = record_in_parts(delivery.envelope, now)
        else:
            log.warning("envelope is halved", attempts=attempts)
            outcome = _isolate(delivery, _split(delivery, now), now)
        in_transaction(lambda c: rows.finish(c, digest))
    finally:
        _let_go(digest)
    log.info("usage recorded", attempts=attempts, **{name: getattr(outcome, name) for name in Outcome.__slots__})
    return outcome


def record_in_parts(envelope: bytes, now: datetime) -> Outcome:
    """Record what can be recorded of an envelope; what can't is parked, event by event, with the reason."""
    try:
        pieces = split_envelope(envelope, settings().envelope_bytes_max)
    except EnvelopeMalformed as error:
        return _park_bytes(envelope, Parking(ParkReason.ENVELOPE_MALFORMED, error.detail), now)
    return _record_or_halve(pieces, now)


def park_whole(envelope: bytes, now: datetime) -> Outcome:
    """Keep an envelope of which nothing else could be done, so that it is not lost."""
    return _park_bytes(envelope, Parking(ParkReason.UNRECORDABLE, "neither the envelope nor parts of it went in"), now)


def _split(delivery: Delivery, now: datetime) -> list[bytes]:
    """The events of an envelope that may kill whoever looks for them; none when it was parked for that."""
    digest = _digest(b"split", delivery.envelope)
    attempts = delivery.begin(digest, now)
    pieces: list[bytes] = []
    if attempts > ALONE_MAX:
        _park_bytes(delivery.envelope, _killer(attempts, "looked for the events in this envelope"), now)
    else:
        try:
            pieces = split_envelope(delivery.envelope, settings().envelope_bytes_max)
        except EnvelopeMalformed as error:
            _park_bytes(delivery.envelope, Parking(ParkReason.ENVELOPE_MALFORMED, error.detail), now)
    in_transaction(lambda c: rows.finish(c, digest))
    return pieces


def _isolate(delivery: Delivery, pieces: Sequence[bytes], now: datetime) -> Outcome:
    if not pieces:
        return Outcome()
    digest = _digest(b"part", *pieces)
    attempts = delivery.begin(digest, now)
    if len(pieces) == 1 and attempts > ALONE_MAX:
        killer = _killer(attempts, "recorded this event alone")
        outcome = (_park if attempts <= READ_MAX else _park_bytes)(pieces[0], killer, now)
    elif len(pieces) > 1 and attempts > 1:
        middle = len(pieces) // 2
        outcome = _isolate(delivery, pieces[:middle], now) + _isolate(delivery, pieces[middle:], now)
    else:
        outcome = _record_or_halve(pieces, now)
    in_transaction(lambda c: rows.finish(c, digest))
    return outcome


def _record_or_halve(pieces: Sequence[bytes], now: datetime) -> Outcome:
    if not pieces:
        return Outcome()
    try:
        opened = read_events(pieces)
        return record(opened.received, opened.unusable, now)
    except _NOT_THE_INPUT:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the other events
        detail = readable(f"{type(error).__name__}: {error}")
        log.warning("events can't be recorded", events=len(pieces), error=detail)
        if len(pieces) == 1:
            return _park(pieces[0], Parking(ParkReason.UNRECORDABLE, detail), now)
    middle = len(pieces) // 2
    return _record_or_halve(pieces[:middle], now) + _record_or_halve(pieces[middle:], now)


def _park(piece: bytes, parking: Parking, now: datetime) -> Outcome:
    """As an event that owns its key; where even that can't be written, as the bytes it came as."""
    try:
        one = Received(read_event(piece), piece)
    except EventMalformed:
        return _park_bytes(piece, parking, now)

    def as_event(connection: Connection) -> int:
        row = parked_row(one.event, parking, fingerprint(one.event))
        if not usage_rows.insert_if_new(connection, [row], [context_of(one.event)], FINGERPRINT_VERSION, now):
            return 1
        known = usage_rows.known(connection, [(row.tenant_id, row.key)])[row.tenant_id, row.key]
        return 0 if known.fingerprint == row.fingerprint else as_input(connection)

    def as_input(connection: Connection) -> int:
        return park_inputs(connection, [unusable(one, parking.reason, parking.detail)], now)

    try:
        return Outcome(received=1, parked=in_transaction(as_event))
    except _NOT_THE_INPUT:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the bytes can still be kept
        log.warning("event can't be kept as one", key=one.event.key, error=str(error))
    return Outcome(received=1, parked=in_transaction(as_input))


def _park_bytes(raw: bytes, parking: Parking, now: datetime) -> Outcome:
    """Unread, as it came."""
    kept = Unusable(raw, parking.reason, parking.detail)
    return Outcome(received=1, parked=in_transaction(lambda c: park_inputs(c, [kept], now)))


def _killer(attempts: int, what: str) -> Parking:
    return Parking(ParkReason.KILLS_WORKER, f"a worker died {attempts - 1} times while it {what}")


def _digest(*parts: bytes) -> bytes:
    return sha256(b"\n".join(parts)).digest()


def _let_go(digest: bytes) -> None:
    try:
        in_transaction(lambda c: rows.let_go(c, digest))
    except Unavailable:
        # The connection is gone, and the lock with it.
        return
