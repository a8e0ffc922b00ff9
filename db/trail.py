"""What happened to events that their own rows do not say, or not for ever. Entries are never changed."""

from datetime import datetime
from typing import Any, NamedTuple, cast

from billing.events import EventStep
from db.session import Connection


class Entry(NamedTuple):
    """A step of an event."""

    tenant_id: str
    event_key: str
    customer_id: str
    step: EventStep
    detail: str
    at: datetime


_ADD = "INSERT INTO usage_log (tenant_id, event_key, customer_id, step, detail, at) VALUES (%s, %s, %s, %s, %s, %s)"

_OF_EVENT = """
SELECT tenant_id, event_key, customer_id, step, detail, at FROM usage_log
WHERE tenant_id = %s AND event_key = %s ORDER BY entry_id
"""


def add(connection: Connection, entry: Entry) -> None:
    """Write down a step."""
    connection.execute(_ADD, entry)


def of_event(connection: Connection, tenant_id: str, key: str) -> list[Entry]:
    """The steps of an event that were written down, in their order. Takes no lock."""
    return [Entry._make(cast("Any", row)) for row in connection.execute(_OF_EVENT, (tenant_id, key))]
