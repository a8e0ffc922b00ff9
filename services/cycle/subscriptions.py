"""Subscriptions: changing the plan or the zone, pausing, resuming, ending, beginning again.

Each change first brings the customer up to now (`services.cycle.months.turn`), under their lock: whatever began before
it is decided by what held then. So a change needs no history to be right, however long the month's tick was away.

Whoever repeats a change under an idempotency key, because its answer was lost, is told when the first took effect.
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from billing.errors import CustomerNotFound, PlanNotFound, Rejected
from billing.payments import PAID, PaymentKind, payment_id
from billing.periods import Calendar, Period, Terms, begin
from billing.plans import Plan
from billing.subscriptions import anchor_day, prorated
from config.logging import logger
from db import customers as customer_rows
from db import months as month_rows
from db import owed as owed_rows
from db import payments as payment_rows
from db import refunds as refund_rows
from db import subscriptions as rows
from db import wallets as wallet_rows
from db.months import OpenedPeriod, SubscriptionRow
from db.owed import NewPayment
from db.payments import PaymentRow
from db.session import Connection, in_transaction
from db.subscriptions import KEY, LogRow, PeriodRow
from services.books import accounts, catalogue, periods
from services.books.zones import check_zone
from services.collecting.refunds import left_in_the_end_minor
from services.collecting.voiding import void_locked
from services.cycle import months

log = logger(__name__)

Identity = tuple[str, str]
"""tenant, customer"""

PRORATED = "a part of the period was not used"


class At(StrEnum):
    """When a change takes effect."""

    NOW = "now"
    """At once: the period ends here."""
    PERIOD_END = "period_end"


def find(tenant_id: str, customer_id: str) -> SubscriptionRow:
    """A customer's subscription. Raises `CustomerNotFound`."""
    return in_transaction(lambda connection: _subscription(connection, (tenant_id, customer_id)))


def history(tenant_id: str, customer_id: str) -> list[LogRow]:
    """What a subscription went through, in order."""
    return in_transaction(lambda connection: rows.log_of(connection, tenant_id, customer_id))


def periods_of(tenant_id: str, customer_id: str) -> list[PeriodRow]:
    """A customer's periods, in order."""
    return in_transaction(lambda connection: rows.periods_of(connection, tenant_id, customer_id))


def change_plan(
    tenant_id: str, customer_id: str, plan_id: str, now: datetime, at: At = At.PERIOD_END, key: str | None = None
) -> datetime:
    """Put a customer on the newest version of a plan, now or when the period ends; when that is.

    Now, the period ends here and another begins, with a fee of its own and tokens counted from zero; where the plan
    prorates, the rest of the old fee is given back, or no longer collected. At the period's end the calendar stays as
    it is. Where the subscription ends with its period, only now will do: it ends with the new one. Whoever is on that
    version already stays on it, now and next. Raises `PlanNotFound`, `CustomerNotFound`, `Rejected` (ended, or nothing
    follows; the next period has begun already).
    """

    def change(connection: Connection, subscription: SubscriptionRow, current: Period) -> _Moved:
        plan = _newest(connection, tenant_id, plan_id)
        _refuse_ended(subscription, now)
        if at is At.PERIOD_END and subscription.ended_at is not None:
            raise Rejected(
                f"the subscription of customer {customer_id} ends at {subscription.ended_at.isoformat()}, and no "
                "period follows on another plan; begin another with `subscribe` then"
            )
        detail = {"from": [subscription.plan_id, subscription.plan_version], "to": [plan.plan_id, plan.version]}
        if at is At.PERIOD_END:
            effective_at = current.ends_at
            next_plan = (plan.plan_id, plan.version, effective_at)
            rows.save(connection, _with_next(subscription, *next_plan))
        elif (plan.plan_id, plan.version) == current.plan_key:
            effective_at = current.starts_at
            if subscription.next_plan_id is None:
                return _Moved(effective_at)
            rows.save(connection, _with_next(subscription, None, None, None))
        else:
            effective_at = now
            _reduce_fee(connection, subscription, current, now, now)
            _begin_anew(connection, subscription, current, plan, now)
        return _Moved(effective_at, "plan_changed", detail)

    return _changed((tenant_id, customer_id), now, change, key, is_period_cut=True)


def subscribe(tenant_id: str, customer_id: str, plan_id: str, now: datetime, key: str | None = None) -> datetime:
    """Begin again after an end, on the newest version of a plan: a new period begins now. Raises as `change_plan`."""

    def change(connection: Connection, subscription: SubscriptionRow, current: Period) -> _Moved:
        plan = _newest(connection, tenant_id, plan_id)
        if subscription.ended_at is None or subscription.ended_at > now:
            raise Rejected(f"customer {customer_id} is subscribed to {subscription.plan_id}; change the plan instead")
        # Until its end it was used, and that stays paid for.
        _reduce_fee(connection, subscription, current, subscription.ended_at, now)
        again = subscription._replace(ended_at=None, paused_at=None, billed_from=now)
        _begin_anew(connection, again, current, plan, now)
        return _Moved(now, "subscribed", {"to": [plan.plan_id, plan.version]})

    return _changed((tenant_id, customer_id), now, change, key, is_period_cut=True)


def change_zone(tenant_id: str, customer_id: str, time_zone: str, now: datetime) -> datetime:
    """Count a customer's months in another zone from the next period on; when that begins.

    Raises `CustomerNotFound`, `Rejected` (no such zone).
    """
    check_zone(time_zone)

    def change(connection: Connection, subscription: SubscriptionRow, current: Period) -> _Moved:
        rows.save(connection, subscription._replace(time_zone=time_zone))
        detail = {"from": subscription.time_zone, "to": time_zone}
        return _Moved(current.ends_at, "zone_changed", detail)

    return _changed((tenant_id, customer_id), now, change)


def pause(tenant_id: str, customer_id: str, now: datetime, key: str | None = None) -> datetime:
    """Let periods that begin from now on owe no fee and get no free credits. Paused already, nothing changes.

    What is used meanwhile is charged as ever. Raises `CustomerNotFound`, `Rejected` (ended).
    """

    def change(connection: Connection, subscription: SubscriptionRow, current: Period) -> _Moved:
        _refuse_ended(subscription, now)
        if subscription.paused_at is not None:
            return _Moved(subscription.paused_at)
        rows.save(connection, subscription._replace(paused_at=now))
        return _Moved(now, "paused", {"period_ends_at": current.ends_at.isoformat()})

    return _changed((tenant_id, customer_id), now, change, key)


def resume(tenant_id: str, customer_id: str, now: datetime, key: str | None = None) -> datetime:
    """Go on after a pause: the current period owes its fee, prorated from now where the plan says so, if it has none.

    Not paused, nothing changes. Raises `CustomerNotFound`, `Rejected` (ended).
    """

    def change(connection: Connection, subscription: SubscriptionRow, current: Period) -> _Moved:
        _refuse_ended(subscription, now)
        if subscription.paused_at is None:
            return _Moved(now)
        detail = {"paused_at": subscription.paused_at.isoformat()}
        # What began before the pause, or at that very moment, owes its whole fee: it is billed as if nothing had been.
        has_begun_before = current.starts_at <= subscription.paused_at
        since = subscription.billed_from if has_begun_before else now
        rows.save(connection, subscription._replace(paused_at=None, billed_from=since))
        rows.reopen(connection, (tenant_id, customer_id), current.starts_at)
        return _Moved(now, "resumed", detail)

    return _changed((tenant_id, customer_id), now, change, key)


def end(tenant_id: str, customer_id: str, now: datetime, at: At = At.PERIOD_END, key: str | None = None) -> datetime:
    """End a subscription, now or when the period ends; when that is. Ended already, nothing changes.

    The period itself runs to its end, and has its statement; no other follows it. Now, the rest of its fee is given
    back, or no longer collected, where the plan prorates. What is used afterwards is charged as ever. Raises
    `CustomerNotFound`.
    """

    def change(connection: Connection, subscription: SubscriptionRow, current: Period) -> _Moved:
        ended_at = now if at is At.NOW else current.ends_at
        if subscription.ended_at is not None and subscription.ended_at <= ended_at:
            return _Moved(subscription.ended_at)
        if at is At.NOW:
            _reduce_fee(connection, subscription, current, now, now)
        rows.save(connection, _with_next(subscription, None, None, None)._replace(ended_at=ended_at))
        return _Moved(ended_at, "ended", {"at": at.value})

    return _changed((tenant_id, customer_id), now, change, key)


class _Moved(NamedTuple):
    """When a change takes effect, and what is written of it; nothing, where all was so already."""

    effective_at: datetime
    move: str | None = None
    detail: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody writes into


_Change = Callable[[Connection, SubscriptionRow, Period], _Moved]


def _changed(
    identity: Identity, now: datetime, change: _Change, key: str | None = None, *, is_period_cut: bool = False
) -> datetime:
    """Bring the customer up to now, change, and bring them up to now again, in one transaction under their lock.

    What was changed under the key before stays as it was changed then.
    """

    def work(connection: Connection) -> datetime:
        month_rows.lock_turns(connection, [identity])
        wallet_rows.lock_of_customers(connection, [identity])
        _subscription(connection, identity)
        before = rows.changed_under(connection, identity, key) if key is not None else None
        if before is not None:
            return before
        if rows.is_next_begun(connection, identity, now, by_anybody=False):
            raise Rejected("the next period has begun while this waited; try again")
        months.turn(connection, [identity], now)
        current = periods.current(connection, [identity], now)[identity]
        if is_period_cut and rows.is_next_begun(connection, identity, now, by_anybody=True):
            raise Rejected("an event that was ahead of its time has begun the next period; try again when it is there")
        moved = change(connection, _subscription(connection, identity), current)
        if moved.move is not None:
            detail = moved.detail if key is None else moved.detail | {KEY: key}
            rows.log(connection, identity, moved.move, moved.effective_at, detail, now)
        accounts.forget([identity])
        months.turn(connection, [identity], now)
        return moved.effective_at

    effective_at = in_transaction(work)
    log.info(
        "subscription changed", tenant_id=identity[0], customer_id=identity[1], effective_at=effective_at.isoformat()
    )
    return effective_at


def _subscription(connection: Connection, identity: Identity) -> SubscriptionRow:
    found = month_rows.subscriptions(connection, [identity])
    if not found:
        raise CustomerNotFound(tenant_id=identity[0], customer_id=identity[1])
    return found[0]


def _newest(connection: Connection, tenant_id: str, plan_id: str) -> Plan:
    plan = customer_rows.newest_plan(connection, tenant_id, plan_id)
    if plan is None:
        raise PlanNotFound(tenant_id=tenant_id, plan_id=plan_id)
    return plan


def _refuse_ended(subscription: SubscriptionRow, now: datetime) -> None:
    if subscription.ended_at is not None and subscription.ended_at <= now:
        raise Rejected(
            f"the subscription of customer {subscription.customer_id} has ended; begin another with `subscribe`"
        )


def _with_next(
    subscription: SubscriptionRow, plan_id: str | None, version: int | None, at: datetime | None
) -> SubscriptionRow:
    return subscription._replace(next_plan_id=plan_id, next_plan_version=version, next_plan_at=at)


def _begin_anew(
    connection: Connection, subscription: SubscriptionRow, current: Period, plan: Plan, now: datetime
) -> None:
    """End the current period here, and begin another on the plan."""
    identity = (subscription.tenant_id, subscription.customer_id)
    if current.starts_at >= now:
        raise Rejected("the period has begun this very moment; try again")
    months.end_credits(connection, identity, current, now)
    rows.cut(connection, identity, current.starts_at, now)
    day = anchor_day(plan, now, subscription.time_zone)
    terms = Terms(Calendar(subscription.time_zone, day), (plan.plan_id, plan.version))
    period = begin(now, [current._replace(ends_at=now)], terms)
    span = (period.starts_at, period.ends_at)
    month_rows.begin(
        connection,
        [OpenedPeriod(*identity, *span, plan.plan_id, plan.version, subscription.time_zone, None)],
    )
    ended_at = None if subscription.ended_at is None else period.ends_at
    on_plan = subscription._replace(plan_id=plan.plan_id, plan_version=plan.version, anchor_day=day, ended_at=ended_at)
    rows.save(connection, _with_next(on_plan, None, None, None))


def _reduce_fee(
    connection: Connection, subscription: SubscriptionRow, period: Period, until: datetime, now: datetime
) -> None:
    """Where its plan prorates, let a period cost only the days until then: give back, or collect less.

    `subscription` is the one that the fee fell due on.
    """
    identity = (subscription.tenant_id, subscription.customer_id)
    found = rows.fee_of(connection, identity, period.starts_at)
    payment = payment_rows.lock(connection, subscription.tenant_id, found) if found else None
    if payment is None:
        return
    plan = catalogue.plans(connection, [(subscription.tenant_id, *period.plan_key)])[
        subscription.tenant_id, *period.plan_key
    ]
    calendar = Calendar(period.time_zone, subscription.anchor_day)
    since = max(period.starts_at, subscription.billed_from)
    used = min(payment.amount_minor, prorated(plan.fixed_fee_minor, plan, period, calendar, since, until))
    if used == payment.amount_minor:
        return
    if payment.state in PAID:
        back = min(payment.amount_minor - used, left_in_the_end_minor(connection, payment))
        if back > 0:
            key = f"prorate:{payment.payment_id}"
            refund_rows.add(connection, payment, back, PRORATED, key, now)
        return
    void_locked(connection, payment, PRORATED, now, source="calendar")
    if used:
        owed_rows.fall_due(
            connection,
            [_smaller(connection, payment, used)],
            now,
            source="calendar",
            why=f"instead of payment {payment.payment_id}: {PRORATED}",
        )


def _smaller(connection: Connection, payment: PaymentRow, amount_minor: int) -> NewPayment:
    generation = payment.generation + 1
    natural = (payment.tenant_id, payment.customer_id, payment.period_start, PaymentKind.SUBSCRIPTION, 0, generation)
    return NewPayment(
        payment.tenant_id,
        payment_id(catalogue.installation(connection), *natural),
        payment.customer_id,
        payment.period_start,
        PaymentKind.SUBSCRIPTION.value,
        0,
        generation,
        amount_minor,
        payment.currency,
    )
