"""The service itself: what it is, whether it is well, what the audit found, what administrators did."""

from datetime import datetime
from typing import Any, Literal

from fastapi import Request, Response
from pydantic import Field

from api.access import Admin, OverAll
from api.fields import PAGE_ROWS, Answer, Cursor, Limit
from api.looks import Look
from api.routes import problems, router
from api.v1.history import EventStatus
from billing.access import Capability
from billing.errors import Unavailable
from billing.quotes import BillingMethod
from billing.reasons import Reason
from config import clock
from config.settings import SettingsMissing, settings
from payments.reachability import reach
from services.clocks import Clocks
from services.desk import access, summaries
from services.oversight import health
from services.oversight.health import DatabaseHealth
from tasks.queues import depths, usage_late_seconds

routes = router("service")

NAME, VERSION = "centavo", "1"

#: How long Stripe is waited for, and how long what was found is told.
STRIPE_SECONDS_MAX = 2.0
STRIPE_KEPT_SECONDS = 10.0
#: Ticks are noted every five seconds. Of more than some, beat, its broker or whoever takes ticks stands still.
BEAT_SECONDS_MAX = 30
#: Workers reach for Stripe every half minute.
STRIPE_REACHED_SECONDS_MAX = 120
SERVICE_TYPES = ("model_inference", "mcp_service", "agent_execution", "storage_minio", "api_gateway", "notification")


class Info(Answer):
    """What this is. `now` is the moment that it goes by."""

    name: str
    api_version: str
    now: datetime
    service_types: list[str] = Field(description="Those that are usual; an event may name any.")
    billing_methods: list[BillingMethod]
    event_statuses: list[EventStatus]
    reasons: list[Reason] = Field(description="Why value moves: those that are usual; any word will do.")
    capabilities: list[Capability]


class PartOut(Answer):
    """One thing that is needed: whether it is there, and how it stands; `unknown` where nobody has looked yet.

    `differs` is said of a clock alone.
    """

    status: Literal["ok", "away", "unknown", "differs"]
    detail: dict[str, Any] = Field(default_factory=dict)


class Health(Answer):
    """How everything stands. Without Stripe or beat this still answers: then it is degraded, and the status is 200."""

    status: Literal["ok", "degraded"]
    at: datetime
    database: PartOut = Field(description="And how late is what stands in it: seconds of the oldest that is due.")
    broker: PartOut = Field(description="Messages waiting by queue; seconds that the oldest usage has waited.")
    stripe: PartOut = Field(
        description="Whether it can be reached: from here, as of some seconds ago; or, without a key, by workers."
    )
    beat: PartOut = Field(description="When a tick of beat's last came through to a worker.")
    clock: PartOut = Field(
        description="By how many seconds this host is ahead of the database; where they differ too much, nothing is "
        "done on such a host that time alone brings about."
    )


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
        reasons=[*Reason],
        capabilities=[*Capability],
    )


@routes.get(
    "/reconciliation", operation_id="get_reconciliation", summary="What the audit found", responses=problems(404)
)
def get_reconciliation(caller: OverAll) -> ReconciliationAnswer:
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


def detailed_health(_caller: OverAll, request: Request, response: Response) -> Health:
    """Whether database, broker and Stripe are there, whether beat ticks, and how late everything is."""
    now = clock.now()
    found = _database(now)
    stripe: Look[int] = request.app.state.stripe
    parts = {
        "database": _of_database(found),
        "broker": _broker(),
        "stripe": _stripe(stripe, found, now),
        "beat": _seen("ticked_at", found.ticked_at if found else None, now, BEAT_SECONDS_MAX),
        "clock": _compared(found.clocks if found else None),
    }
    away = {name for name, part in parts.items() if part.status == "away"}
    response.status_code = 503 if away & {"database", "broker"} else 200
    is_well = not away and parts["clock"].status != "differs"
    return Health(status="ok" if is_well else "degraded", at=now, **parts)


def stripe_look() -> Look[int]:
    """A look at whether Stripe can be reached: every ten seconds at most, whoever asks, and bounded."""
    return Look(
        lambda: reach(settings().stripe_api_base, STRIPE_SECONDS_MAX),
        kept_seconds=STRIPE_KEPT_SECONDS,
        waited_seconds=STRIPE_SECONDS_MAX,
    )


def _database(now: datetime) -> DatabaseHealth | None:
    try:
        return health.database(now, clock.unmoved())
    except (Unavailable, SettingsMissing):
        return None


def _of_database(found: DatabaseHealth | None) -> PartOut:
    if found is None:
        return PartOut(status="away")
    waiting = ("payments_late_seconds", "inbox_late_seconds", "webhooks_late_seconds")
    said = ("server_version", "unsafe_settings", *waiting, "audited_at")
    return PartOut(status="ok", detail={name: getattr(found, name) for name in said})


def _compared(clocks: Clocks | None) -> PartOut:
    if clocks is None:
        return PartOut(status="unknown")
    at = {"host_at": clocks.host_at, "database_at": clocks.database_at}
    return PartOut(status="differs" if clocks.differ else "ok", detail={"ahead_seconds": clocks.ahead_seconds, **at})


def _broker() -> PartOut:
    try:
        late = usage_late_seconds(clock.unmoved())
        detail = {"waiting": depths(), "usage_late_seconds": None if late is None else int(late)}
    except (Unavailable, SettingsMissing):
        return PartOut(status="away")
    return PartOut(status="ok", detail=detail)


def _stripe(look: Look[int], found: DatabaseHealth | None, now: datetime) -> PartOut:
    if settings().stripe_secret_key is None:
        # This process has no business at Stripe, and maybe no way there; the workers who have say how it is.
        return _seen("reached_at", found.stripe_reached_at if found else None, now, STRIPE_REACHED_SECONDS_MAX)
    try:
        return PartOut(status="ok", detail={"answered": look.found()})
    except (Unavailable, TimeoutError):
        return PartOut(status="away")


def _seen(name: str, at: datetime | None, now: datetime, seconds_max: int) -> PartOut:
    """What shows itself again and again, and when it last did."""
    if at is None:
        return PartOut(status="unknown", detail={name: None})
    seconds = int((now - at).total_seconds())
    return PartOut(status="ok" if seconds <= seconds_max else "away", detail={name: at, "seconds": seconds})
