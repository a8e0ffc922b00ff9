"""Counting usage in quotas, in the transaction that charges it: each event once in each quota that is for it.

Which quotas those are is decided before any lock, and written on the event's row: so a void takes back what was
counted and nothing else, and the audit needs no clock. Tenants without quotas cost a look into a dictionary.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from billing.charging import Charge
from billing.money import ZERO, written
from billing.payments import AlertKind
from billing.quotas import Measure, Quota, QuotaBook, QuotaKind, Scope, over, reached, subject_in
from db import quotas as rows
from db.alerts import raise_alert
from db.quotas import Addition, Total, Warned
from db.session import Connection, in_transaction

#: As far back as a tenant's counters are looked at again: every window that usage may still come for.
LOOKS_BACK = timedelta(days=70)

_ALERTS = {
    QuotaKind.QUOTA: AlertKind.QUOTA_THRESHOLD,
    QuotaKind.BUDGET: AlertKind.BUDGET_THRESHOLD,
    QuotaKind.CAP: AlertKind.CAP_THRESHOLD,
}

Counter = tuple[str, int, str, date]
"""tenant, quota, subject, window"""


def match(connection: Connection, book: QuotaBook, charges: Sequence[Charge]) -> Mapping[tuple[str, str], list[int]]:
    """Find for each charge the quotas that it counts in; their ids by the event's tenant and key. Takes no lock."""
    if not book:
        return {}
    named = _named(connection, book, charges)
    found = {}
    for charge in charges:
        event = charge.event
        candidates = [*book.general.get(event.tenant_id, ())]
        for scope in book.named.get(event.tenant_id, ()):
            candidates += named.get((event.tenant_id, scope, subject_in(scope, event) or ""), ())
        if not candidates:
            continue
        subjects = [(quota, quota.subject_of(event, charge.rated.currency)) for quota in candidates]
        charge.quotas = tuple((quota, subject) for quota, subject in subjects if subject is not None)
        if charge.quotas:
            found[event.tenant_id, event.key] = [quota.quota_id for quota, _ in charge.quotas]
    return found


def count(connection: Connection, charges: Iterable[Charge], now: datetime) -> None:
    """Count charges in their quotas, mark those that went over, and say which thresholds were reached.

    Locks the counters, in order, after everything else.
    """
    counted = [charge for charge in charges if charge.quotas]
    if not counted:
        return
    amounts: defaultdict[Counter, list[tuple[Charge, Decimal]]] = defaultdict(list)
    quotas: dict[Counter, Quota] = {}
    for charge in counted:
        for quota, subject in charge.quotas:
            if amount := quota.amount(charge.rated.tokens, charge.rated.cost):
                window = quota.window_of(charge.event.occurred_at)
                counter = (quota.tenant_id, quota.quota_id, subject, window)
                quotas[counter] = quota
                amounts[counter].append((charge, amount))
    if not amounts:
        return
    parts = [amounts[counter] for counter in sorted(amounts)]
    sums = [sum((amount for _, amount in one), ZERO) for one in parts]
    additions = [
        Addition(quotas[counter], *counter[2:], added) for counter, added in zip(sorted(amounts), sums, strict=True)
    ]
    totals = rows.count(connection, additions)

    _mark(connection, parts, additions, totals)
    for addition, total in zip(additions, totals, strict=True):
        if any(percent > total.said for percent in reached(total.used, addition.quota.limit)):
            _warn(connection, addition.quota, addition.subject, addition.window, total.used, now)


def look_again(now: datetime) -> int:
    """Say which thresholds tenants' counters have reached, where transactions that met did not see each other's.

    How many were said.
    """

    def work(connection: Connection) -> int:
        found = rows.unsaid(connection, (now - LOOKS_BACK).date())
        return sum(_warn(connection, quota, "", window, used, now) for quota, window, used in found)

    return in_transaction(work)


def _named(
    connection: Connection, book: QuotaBook, charges: Iterable[Charge]
) -> Mapping[tuple[str, Scope, str], list[Quota]]:
    """The quotas of their own of whoever used something, where anybody of their scope has one."""
    asked: set[tuple[str, Scope, str]] = set()
    for charge in charges:
        event = charge.event
        for scope in book.named.get(event.tenant_id, ()):
            if subject := subject_in(scope, event):
                asked.add((event.tenant_id, scope, subject))
    found: defaultdict[tuple[str, Scope, str], list[Quota]] = defaultdict(list)
    for quota in rows.named(connection, sorted(asked)) if asked else ():
        found[quota.tenant_id, quota.scope, quota.subject].append(quota)
    return found


def _mark(
    connection: Connection,
    amounts: Iterable[Sequence[tuple[Charge, Decimal]]],
    additions: Iterable[Addition],
    totals: Iterable[Total],
) -> None:
    marked = {
        (charge.event.tenant_id, charge.event.key)
        for parts, addition, total in zip(amounts, additions, totals, strict=True)
        if total.used > addition.quota.limit
        for (charge, _), is_over in zip(
            parts, over(total.used, [amount for _, amount in parts], addition.quota.limit), strict=True
        )
        if is_over
    }
    if marked:
        rows.mark_over(connection, sorted(marked))


def _warn(connection: Connection, quota: Quota, subject: str, window: date, used: Decimal, now: datetime) -> int:
    """Say each threshold that is reached and was not said; how many."""
    said = 0
    for percent in reached(used, quota.limit):
        warned = Warned(quota.tenant_id, "quota", quota.quota_id, subject, window, quota.limit, percent)
        if not rows.warn(connection, warned, now):
            continue
        said += 1
        unit = quota.currency if quota.measure is Measure.COST else quota.measure.value
        whose = f" of {quota.scope} {subject}" if subject else ""
        figures = f"{written(used)} of {written(quota.limit)} {unit}"
        when = f"the {quota.per} from {window.isoformat()} on"
        detail = f"{quota.kind} {quota.name}{whose} has reached {percent} %: {figures} in {when} ({quota.time_zone})"
        about = f"{quota.name}#{quota.quota_id} {subject} {window.isoformat()} {percent}% of {written(quota.limit)}"
        customer_id = subject if quota.scope is Scope.CUSTOMER else None
        raise_alert(connection, quota.tenant_id, _ALERTS[quota.kind], about, detail, now, customer_id=customer_id)
    return said
