"""Statements: what a closed period came to, issued once, in order, numbered without gaps.

Nothing that a statement sums can change any more, so it takes its time and holds nobody up: it locks the period's
row, against another closer, and last of all the tenant's number. A statement tells of payments what no statement
before it has told, whenever it happened; so nothing falls between two of them, and nothing is told twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any

from billing.currencies import in_major
from billing.errors import CustomerNotFound, DatabaseBusy, DatabaseSlow, NotFound, Stopping, Unavailable
from billing.money import ZERO
from billing.payments import AlertKind, PaymentKind
from billing.reasons import EntryKind
from billing.statements import AccountKind, Balance, Line, LineKind, Statement
from config.logging import logger
from db import customers as customer_rows
from db import months as month_rows
from db import statements as rows
from db.session import LOCK_TRIES_OF_PARTS, Connection, in_transaction
from db.statements import ClosedPeriod, PaymentFacts, PeriodKey
from services import alone

log = logger(__name__)

ISSUED_AT_ONCE = 100
#: Of those that could not be issued before: each may take minutes.
TRIED_AGAIN_AT_ONCE = 10

_CHARGES = {
    PaymentKind.SUBSCRIPTION: LineKind.FEE,
    PaymentKind.TIER: LineKind.TIER,
    PaymentKind.TOP_UP: LineKind.TOP_UP,
}


class StatementNotFound(NotFound):
    """There is no such statement; `centavo statements list` shows what there is."""

    code = "unknown_statement"


def issue_due(now: datetime) -> int:
    """Issue some of the statements that are missing, each in a transaction of its own; how many.

    One that can't be issued, or takes too long, is told to a person; it keeps nobody else's back, but the customer's
    later ones, and is tried again when all others are issued.
    """
    while due := in_transaction(lambda connection: month_rows.to_state(connection, ISSUED_AT_ONCE)):
        tried = [_issued(period, now) for period in due]
        if True in tried or False not in tried:
            return tried.count(True)
    again = in_transaction(lambda connection: month_rows.to_state_again(connection, TRIED_AGAIN_AT_ONCE))
    return [_issued(period, now) for period in again].count(True)


def _issued(period: PeriodKey, now: datetime) -> bool | None:
    """Whether it could be; None where it has one, or somebody else is at it."""
    try:
        return issue(period, now) is not None or None
    except (DatabaseBusy, DatabaseSlow) as error:
        log.warning("a statement takes too long", tenant_id=period[0], customer_id=period[1])
        why: Exception = error
    except (Unavailable, Stopping):
        raise
    except Exception as error:
        log.exception("a statement can't be issued", tenant_id=period[0], customer_id=period[1])
        why = error
    what = f"the statement of the period from {period[2].isoformat()}"
    alone.tell(period[:2], AlertKind.STATEMENT_FAILS, what, why, now)
    return False


def issue(period: PeriodKey, now: datetime) -> Statement | None:
    """Issue the statement of a closed period; None when it has one, or somebody else is at it."""

    def work(connection: Connection) -> Statement | None:
        if not rows.lock_period(connection, period):
            return None
        statement = _summed(connection, period, now)
        statement.check()
        rows.add(connection, statement)
        return statement

    issued = in_transaction(work, lock_tries=LOCK_TRIES_OF_PARTS)
    if issued is not None:
        log.info(
            "statement issued",
            tenant_id=issued.tenant_id,
            customer_id=issued.customer_id,
            number=issued.number,
            period_start=issued.period_start.isoformat(),
        )
    return issued


def find(tenant_id: str, number: int) -> Statement:
    """A statement. Raises `StatementNotFound`."""
    found = in_transaction(lambda connection: rows.find(connection, tenant_id, number))
    if found is None:
        raise StatementNotFound(tenant_id=tenant_id, number=number)
    return found


def of_customer(tenant_id: str, customer_id: str) -> list[Statement]:
    """The statements of a customer, in order."""
    return in_transaction(lambda connection: rows.of_customer(connection, tenant_id, customer_id))


def of_known_customer(tenant_id: str, customer_id: str) -> list[Statement]:
    """The same, for a customer that must be there. Raises `CustomerNotFound`."""

    def work(connection: Connection) -> list[Statement]:
        if customer_rows.find_customer(connection, tenant_id, customer_id) is None:
            raise CustomerNotFound(tenant_id=tenant_id, customer_id=customer_id)
        return rows.of_customer(connection, tenant_id, customer_id)

    return in_transaction(work)


def find_of_customer(tenant_id: str, customer_id: str, number: int) -> Statement:
    """A statement of this customer. Raises `StatementNotFound`, for another's as for none."""
    found = in_transaction(lambda connection: rows.find(connection, tenant_id, number))
    if found is None or found.customer_id != customer_id:
        raise StatementNotFound(tenant_id=tenant_id, customer_id=customer_id, number=number)
    return found


def _summed(connection: Connection, key: PeriodKey, now: datetime) -> Statement:
    tenant_id, customer_id, _ = key
    period = rows.closed_period(connection, key)
    lines = [*_numbered(_lines(connection, key, period))]
    openings = rows.openings(connection, tenant_id, customer_id)
    openings.setdefault((AccountKind.DUE, period.payment_currency), ZERO)
    balances = _balances(openings, lines)
    number = rows.next_number(connection, tenant_id)
    return Statement(
        tenant_id,
        period.tenant_name,
        customer_id,
        number,
        now,
        period.starts_at,
        period.ends_at,
        period.time_zone,
        period.plan_id,
        period.plan_version,
        period.plan_name,
        period.tokens,
        period.included_tokens,
        period.tiers,
        period.events,
        balances,
        tuple(lines),
    )


def _balances(openings: dict[tuple[AccountKind, str], Decimal], lines: Sequence[Line]) -> tuple[Balance, ...]:
    moved: dict[tuple[AccountKind, str], Decimal] = dict.fromkeys(openings, ZERO)
    for line in lines:
        if line.account is not None and line.currency is not None:
            moved[line.account, line.currency] = moved.get((line.account, line.currency), ZERO) + line.amount
    return tuple(
        Balance(*account, openings.get(account, ZERO), openings.get(account, ZERO) + amount)
        for account, amount in sorted(moved.items())
    )


def _numbered(lines: Iterator[Line]) -> Iterator[Line]:
    return (replace(line, number=number) for number, line in zip(count(1), lines, strict=False))


def _lines(connection: Connection, key: PeriodKey, period: ClosedPeriod) -> Iterator[Line]:
    tenant_id, customer_id, _ = key
    for facts in rows.payments(connection, tenant_id, customer_id, period.ends_at):
        yield from _of_payment(facts)
    yield from _of_usage(connection, key)
    yield from _of_entries(connection, key)
    yield from _of_corrections(connection, key)


def _of_payment(facts: PaymentFacts) -> Iterator[Line]:
    """What of a payment no statement has told yet."""
    kind = PaymentKind(facts.kind)
    told = {name: Decimal(amount) for name, amount in facts.told.items()}
    about: dict[str, Any] = {"tier": facts.tier} if kind is PaymentKind.TIER else {"kind": kind.value}
    reference = {"payment_id": str(facts.payment_id), "period_start": facts.period_start.isoformat()}
    stands = {
        "charged": (_CHARGES[kind], facts.charged),
        LineKind.VOIDED.value: (LineKind.VOIDED, -facts.voided),
        LineKind.COLLECTED.value: (LineKind.COLLECTED, -facts.collected),
        LineKind.REFUNDED.value: (LineKind.REFUNDED, facts.refunded),
        LineKind.DISPUTED.value: (LineKind.DISPUTED, facts.disputed),
    }
    for name, (line_kind, minor) in stands.items():
        if amount := in_major(minor, facts.currency) - told.get(name, ZERO):
            yield Line(0, line_kind, amount, AccountKind.DUE, facts.currency, about=about, reference=reference)


def _of_usage(connection: Connection, key: PeriodKey) -> Iterator[Line]:
    for used in rows.usage(connection, key):
        about = {"category": used.category, "provider": used.provider, "model": used.model}
        line = Line(0, LineKind.COVERED, quantity=used.quantity, unit=used.unit, events=used.events, about=about)
        if used.currency is not None:
            line = replace(
                line, kind=LineKind.USAGE, amount=-used.cost, account=AccountKind.WALLET, currency=used.currency
            )
        yield line


def _of_entries(connection: Connection, key: PeriodKey) -> Iterator[Line]:
    for entry in rows.entries(connection, key):
        # What a subscription gives is told among grants, with its source.
        kind = LineKind.GRANT if entry.kind == EntryKind.SUBSCRIPTION else LineKind(entry.kind)
        said = {"source": entry.source, "reason": entry.reason}
        refers = {
            "entry": entry.seq,
            "occurred_at": entry.occurred_at.isoformat(),
            "event_key": entry.event_key,
            "payment_id": entry.payment_id,
        }
        yield Line(
            0,
            kind,
            entry.amount,
            AccountKind.WALLET,
            entry.currency,
            about={name: value for name, value in said.items() if value is not None},
            reference={name: value if name == "entry" else str(value) for name, value in refers.items() if value},
        )


def _of_corrections(connection: Connection, key: PeriodKey) -> Iterator[Line]:
    for one in rows.corrections(connection, key):
        refers = {"event_key": one.event_key, "period_start": one.counted_in.isoformat()}
        yield Line(
            0,
            LineKind.CORRECTED,
            currency=one.currency,
            quantity=Decimal(one.tokens),
            unit="token",
            events=one.events,
            about={"kind": one.kind, "reason": one.reason, "cost": str(one.cost)},
            reference={name: value for name, value in refers.items() if value is not None},
        )
