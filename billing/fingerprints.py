"""Is this the same event again, or another one under the same key?"""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from billing.events import Event
from billing.money import written

FINGERPRINT_VERSION = 1
FINGERPRINT_BYTES = 16
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def fingerprint(event: Event) -> bytes:
    """16 bytes over what an event says was used: tenant, customer, items in any order, and when.

    Quantities are normalised (5, 5.0 and 5e0 are one), times are in UTC; metadata and context are left out,
    so a retry may carry other context and is still the same event. NUL separates, because it is the one
    character that no field can hold: no two events can say the same.
    """
    items = sorted([f"{i.category}\0{i.provider}\0{i.model}\0{i.unit}\0{written(i.quantity)}" for i in event.items])
    microseconds = (event.occurred_at - EPOCH) // MICROSECOND
    said = "\0".join((event.tenant_id, event.customer_id, str(microseconds), *items))
    return blake2b(said.encode(), digest_size=FINGERPRINT_BYTES).digest()
