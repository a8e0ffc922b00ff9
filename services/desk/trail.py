"""What happened to an event, step by step: of its row, of its corrections, and of what was written down beside them."""

from dataclasses import dataclass
from datetime import datetime

from billing.errors import EventNotFound
from billing.events import EventStep
from db import explain as rows
from db import trail as trail_rows
from db.session import Connection, in_transaction

_ORDER = {step: place for place, step in enumerate(EventStep)}


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to an event, and why or how."""

    step: EventStep
    at: datetime
    detail: str


def trail(tenant_id: str, key: str) -> list[Step]:
    """Everything that happened to an event, the oldest first. Raises `EventNotFound`.

    Of what was replayed before its log began, it is only told that it was charged later than it came.
    """
    return in_transaction(lambda connection: read(connection, tenant_id, key))


def read(connection: Connection, tenant_id: str, key: str) -> list[Step]:
    """The same, within a transaction of the caller's."""
    event = rows.event(connection, tenant_id, key)
    if event is None:
        raise EventNotFound(tenant_id=tenant_id, key=key)
    logged = [Step(EventStep(one.step), one.at, one.detail) for one in trail_rows.of_event(connection, tenant_id, key)]
    corrections = rows.of_event(connection, tenant_id, key)["corrections"]

    steps = [Step(EventStep.RECEIVED, event["recorded_at"], ""), *logged]
    if event["park_reason"] is not None:
        steps.append(Step(EventStep.PARKED, event["recorded_at"], f"{event['park_reason']}: {event['park_detail']}"))
    steps += [Step(EventStep.PARKED, event["recorded_at"], s.detail) for s in logged if s.step is EventStep.REPLAYED]
    if event["charged_at"] is not None:
        steps.append(Step(EventStep.CHARGED, event["charged_at"], ""))
    steps += [Step(EventStep.RERATED, one["at"], one["reason"]) for one in corrections if one["kind"] == "rerate"]
    if event["voided_at"] is not None and not any(one.step is EventStep.CANCELLED for one in logged):
        steps.append(Step(EventStep.VOIDED, event["voided_at"], event["void_reason"]))
    return sorted(steps, key=lambda one: (one.at, _ORDER[one.step]))
