"""The service itself: what it is, whether it is well, what the audit found, what administrators did."""

from datetime import datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import Field

from api.access import Admin, Viewer
from api.fields import PAGE_ROWS, Answer, Cursor, Limit
from api.routes import problems, router
from api.v1.history import EventStatus
from billing.access import Capability
from billing.errors import Unavailable
from billing.quotes import BillingMethod
from config import clock
from config.settings import SettingsMissing
from services import access, health, summaries
from tasks.queues import depths

routes = router("service")

NAME, VERSION = "centavo", "1"
SERVICE_TYPES = ("model_inference", "mcp_service", "agent_execution", "storage_minio", "api_gateway", "notification")


class Info(Answer):
    """What this is. `now` is the moment that it goes by."""

    name: str
    api_version: str
    now: datetime
    service_types: list[str] = Field(description="Those that are usual; an event may name any.")
    billing_methods: list[BillingMethod]
    event_statuses: list[EventStatus]
    capabilities: list[Capability]


class PartOut(Answer):
    """One thing that this needs: whether it is there, and how it stands."""

    status: Literal["ok", "away"]
    detail: dict[str, Any] = Field(default_factory=dict)


class Health(Answer):
    """How everything stands that this needs."""

    status: Literal["ok", "degraded"]
    at: datetime
    database: PartOut
    broker: PartOut


class DifferenceOut(Answer):
    """Two figures that contradict each other, as long as they do."""

    difference_id: int
    check_name: str
    subject: str
    expected: str
    actual: str
    times: int
    first_seen_at: datetime
    last_seen_at: datetime


class ReconciliationAnswer(Answer):
    """What the audit found of this tenant and still stands. It runs by itself; `finished_at` is of the last time."""

    is_consistent: bool
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    differences: list[DifferenceOut]


class ActOut(Answer):
    """What an administrator asked for, written before it was done."""

    act_id: int
    at: datetime
    subject: str
    through: str
    action: str
    target: str
    idempotency_key: str | None
    detail: dict[str, Any]


class ActPage(Answer):
    """A page of acts, the newest first."""

    acts: list[ActOut]
    next: str | None


@routes.get("/info", operation_id="get_info", summary="What this is")
async def get_info() -> Info:
    """Open to everybody."""
    return Info(
        name=NAME,
        api_version=VERSION,
        now=clock.now(),
        service_types=[*SERVICE_TYPES],
        billing_methods=[*BillingMethod],
        event_statuses=[*EventStatus],
        capabilities=[*Capability],
    )


@routes.get(
    "/reconciliation", operation_id="get_reconciliation", summary="What the audit found", responses=problems(404)
)
def get_reconciliation(caller: Viewer) -> ReconciliationAnswer:
    """Of the caller's tenant: wallets against ledger, events, periods and payments."""
    found = summaries.reconciliation(caller.tenant_id)
    return ReconciliationAnswer(
        is_consistent=found.is_consistent,
        started_at=found.turn.started_at,
        finished_at=found.turn.finished_at,
        due_at=found.turn.due_at,
        differences=[DifferenceOut.model_validate(one) for one in found.differences],
    )


@routes.get("/acts", operation_id="list_acts", summary="What administrators did", responses=problems())
def list_acts(caller: Admin, limit: Limit = PAGE_ROWS, cursor: Cursor = None) -> ActPage:
    """The trail of the caller's tenant: who asked for what, when, under which key."""
    page = access.acts(caller.tenant_id, limit=limit, at=cursor)
    return ActPage(acts=[ActOut.model_validate(one) for one in page.rows], next=page.next)


def detailed_health(_caller: Viewer, response: Response) -> Health:
    """Whether the database answers and how late payments are, and what waits at the broker."""
    now = clock.now()
    database, broker = _database(now), _broker()
    is_well = database.status == broker.status == "ok"
    response.status_code = 200 if is_well else 503
    return Health(status="ok" if is_well else "degraded", at=now, database=database, broker=broker)


def _database(now: datetime) -> PartOut:
    try:
        found = health.database(now)
    except (Unavailable, SettingsMissing):
        return PartOut(status="away")
    return PartOut(
        status="ok",
        detail={
            "server_version": found.server_version,
            "payments_late_seconds": found.payments_late_seconds,
            "audited_at": found.audited_at,
        },
    )


def _broker() -> PartOut:
    try:
        return PartOut(status="ok", detail={"waiting": depths()})
    except (Unavailable, SettingsMissing):
        return PartOut(status="away")
