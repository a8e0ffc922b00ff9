"""Usage that was written by SQL: taken out of the inbox, and recorded as an envelope is.

A row is removed after what it says is committed. Whoever dies in between leaves it to the next look, which finds its
key known: a duplicate. Since nobody knows how the last look ended, each one counts as an envelope that came back, so
an event that kills workers is found and parked as anywhere else (`services.metering.redelivery`).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from billing.errors import DatabaseBusy, DatabaseSlow, EnvelopeBusy
from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX, Stamp, pack
from config import faults
from config.logging import logger
from db import inbox as rows
from db.inbox import Written
from db.session import in_transaction
from services import alone
from services.alone import Identity
from services.metering.redelivery import Delivery, record_redelivered

log = logger(__name__)

#: The same rows are the same envelope, whoever packs them: so that its beginnings can be counted.
STAMP = Stamp("usage_inbox", "")


def drain(now: datetime, put_off: set[Identity] | None = None) -> int:
    """Record what was written first, as many rows as an envelope holds; how many were taken, 0 when there are none.

    Each event is charged once or parked, whoever else drains at this moment. A customer who is held, or slow, is put
    off: what they have in the inbox stays there, and is left alone by whoever comes with the same `put_off`. Raises
    `DatabaseUnavailable`.
    """
    try:
        return _drain(set() if put_off is None else put_off, now)
    except EnvelopeBusy:
        return 0  # another is at the same rows


def _drain(put_off: set[Identity], now: datetime) -> int:
    while taken := _oldest(put_off):
        try:
            return _take(taken, now)
        except (DatabaseBusy, DatabaseSlow) as error:
            log.warning("the inbox is held up, and drained one by one", events=len(taken), error=str(error))
        # Whoever was not put off is recorded; if that was nobody, others may come behind.
        if done := _take_each(taken, put_off, now):
            return done
    return 0


def _oldest(put_off: set[Identity]) -> list[Written]:
    found = in_transaction(lambda connection: rows.oldest(connection, ENVELOPE_EVENTS_MAX, put_off))
    return list(_one_envelope(found))


def _take_each(taken: Sequence[Written], put_off: set[Identity], now: datetime) -> int:
    of_each: dict[Identity, list[Written]] = {}
    for row in taken:
        of_each.setdefault((row.tenant_id, row.customer_id), []).append(row)

    def held(identity: Identity) -> None:
        put_off.add(identity)

    return alone.one_by_one(
        lambda identity: _take(of_each[identity], now), list(of_each), lambda identity, _: held(identity), held
    )


def _take(taken: Sequence[Written], now: datetime) -> int:
    delivery = Delivery(packed(taken))
    try:
        record_redelivered(delivery, now)
    except (DatabaseBusy, DatabaseSlow):
        delivery.survived()
        raise
    faults.reached("inbox.recorded")

    in_transaction(lambda connection: rows.remove(connection, taken))
    log.info("inbox drained", events=len(taken))
    return len(taken)


def packed(written: Sequence[Written]) -> bytes:
    """The envelope that these rows are recorded as."""
    return pack([row.event for row in written], STAMP).json


def _one_envelope(found: Sequence[Written]) -> Iterator[Written]:
    """The first of these, up to the size of an envelope; one at least."""
    size = 0
    for row in found:
        size += len(row.event)
        if size > ENVELOPE_BYTES_MAX and size > len(row.event):
            return
        yield row
