"""Emit usage events and forget them; Centavo charges each exactly once."""

from centavo import adapters
from centavo.errors import BufferFull, CentavoError, ProducerClosed, UsageMalformed
from centavo.events import Item, UsageEvent
from centavo.limits import Counters
from centavo.producer import Producer

__all__ = [
    "BufferFull",
    "CentavoError",
    "Counters",
    "Item",
    "Producer",
    "ProducerClosed",
    "UsageEvent",
    "UsageMalformed",
    "adapters",
]
