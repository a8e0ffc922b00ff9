"""Usage that was written by SQL: taken out of the inbox, and recorded as an envelope is.

A row is removed after what it says is committed. Whoever dies in between leaves it to the next look, which finds its
key known: a duplicate. Since nobody knows how the last look ended, each one counts as an envelope that came back, so
an event that kills workers is found and parked as anywhere else (`services.metering.redelivery`).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from billing.errors import EnvelopeBusy
from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX, Stamp, pack
from config import faults
from config.logging import logger
from db import inbox as rows
from db.inbox import Written
from db.session import in_transaction
from services.metering.redelivery import Delivery, record_redelivered

log = logger(__name__)

#: The same rows are the same envelope, whoever packs them: so that its beginnings can be counted.
STAMP = Stamp("usage_inbox", "")


def drain(now: datetime) -> int:
    """Record what was written first, as many rows as an envelope holds; how many were taken, 0 when there are none.

    Each event is charged once or parked, whoever else drains at this moment. Raises `DatabaseUnavailable`.
    """
    found = in_transaction(lambda connection: rows.oldest(connection, ENVELOPE_EVENTS_MAX))
    taken = list(_one_envelope(found))
    if not taken:
        return 0

    try:
        record_redelivered(Delivery(packed(taken)), now)
    except EnvelopeBusy:
        return 0  # another is at the same rows
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
