"""Is this the same event again, or another one under the same key?"""

from hashlib import blake2b

from billing import money
from centavo import UsageEvent

FINGERPRINT_VERSION = 1
FINGERPRINT_BYTES = 16


def fingerprint(event: UsageEvent) -> bytes:
    """16 bytes over what an event says was used: tenant, customer, items in any order, and when.

    Quantities are normalised (5, 5.0 and 5e0 are one), times are in UTC; metadata and context are left out,
    so a retry may carry other context and is still the same event.
    """
    items = sorted(
        f"{i.category}\x1f{i.provider}\x1f{i.model}\x1f{i.unit}\x1f{money.written(i.quantity)}" for i in event.items
    )
    said = f"{event.tenant_id}\x1e{event.customer_id}\x1e{event.occurred_at.isoformat()}\x1e" + "\x1d".join(items)
    return blake2b(said.encode(), digest_size=FINGERPRINT_BYTES).digest()
