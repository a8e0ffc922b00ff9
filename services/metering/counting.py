"""Counting usage in quotas, in the transaction that charges it: each event once in each quota that is for it.

Which quotas those are is decided before any lock, and written on the event's row: so a void takes back what was
counted and nothing else, and the audit needs no clock. Tenants without quotas cost a look into a dictionary.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from billing.charging import Charge
from billing.events import Attributed
from billing.money import written
from billing.payments import AlertKind
from billing.quotas import WHO, Measure, Per, Quota, QuotaBook, QuotaKind, Scope, over, reached, windows_of
from db import quotas as rows
from db.alerts import raise_alert
from db.quotas import Additions, Counter, Total, Warned
from db.session import Connection, in_transaction
from services.books import accounts, catalogue
from services.books.accounts import Account, Identity

#: As far back as a tenant's counters are looked at again: every window that usage may still come for.
LOOKS_BACK = timedelta(days=70)

_ALERTS = {
    QuotaKind.QUOTA: AlertKind.QUOTA_THRESHOLD,
    QuotaKind.BUDGET: AlertKind.BUDGET_THRESHOLD,
    QuotaKind.CAP: AlertKind.CAP_THRESHOLD,
}


class Counting(NamedTuple):
    """Charges that count in quotas, those quotas by tenant and id, and what is added to which counters."""

    charges: Sequence[Charge]
    quotas: Mapping[tuple[str, int], Quota]
    additions: Additions


def match(
    connection: Connection, book: QuotaBook, known: Mapping[Identity, Account], charges: Sequence[Charge]
) -> Mapping[tuple[str, str], list[int]]:
    """Find for each charge the quotas that it counts in; their ids by the event's tenant and key. Takes no lock."""
    if not book:
        return {}
    named = _named(connection, book, known, charges)
    found = {}
    general: dict[tuple[str | None, ...], list[tuple[Quota, Callable[[Attributed], str | None]]]] = {}
    for charge in charges:
        event, currency = charge.event, charge.rated.currency
        kind = (event.tenant_id, event.service_type, event.feature, currency)
        quotas = general.get(kind)
        if quotas is None:
            candidates = book.general.get(event.tenant_id, ())
            quotas = general[kind] = [(one, WHO[one.scope]) for one in candidates if one.is_for(event, currency)]
        counted = [(quota, subject) for quota, who in quotas if (subject := who(event)) is not None]
        for scope in book.named.get(event.tenant_id, ()):
            subject = WHO[scope](event)
            if subject and (own := named.get((event.tenant_id, scope, subject))):
                counted += [(quota, subject) for quota in own if quota.is_for(event, currency)]
        if counted:
            charge.quotas = tuple(counted)
            found[event.tenant_id, event.key] = [quota.quota_id for quota, _ in counted]
    return found


def additions_of(charges: Iterable[Charge]) -> Counting | None:
    """What charges add to the counters of their quotas, made ready before there is any lock; None: nothing."""
    counted = [charge for charge in charges if charge.quotas]
    amounts: dict[Counter, Decimal] = {}
    quotas: dict[tuple[str, int], Quota] = {}
    for counter, quota, _, amount in _parts(counted):
        if (before := amounts.get(counter)) is not None:
            amounts[counter] = before + amount
            continue
        amounts[counter] = amount
        quotas[counter[:2]] = quota
    return Counting(counted, quotas, Additions.of(amounts, quotas.values())) if amounts else None


def count(connection: Connection, counting: Counting, now: datetime) -> None:
    """Count charges in their quotas, mark those that went over, and say which thresholds were reached.

    Locks the counters, in order, after everything else.
    """
    quotas = counting.quotas
    totals = dict(rows.count(connection, counting.additions))

    over_limit = {counter: total for counter, total in totals.items() if total.used > quotas[counter[:2]].limit}
    if over_limit:
        _mark(connection, counting.charges, over_limit)
    for counter, total in totals.items():
        quota = quotas[counter[:2]]
        if any(percent > total.said for percent in reached(total.used, quota.limit)):
            _warn(connection, quota, *counter[2:], total.used, now)


def look_again(now: datetime) -> int:
    """Say which thresholds tenants' counters have reached, where transactions that met did not see each other's.

    How many were said.
    """

    def work(connection: Connection) -> int:
        found = rows.unsaid(connection, (now - LOOKS_BACK).date())
        return sum(_warn(connection, quota, "", window, used, now) for quota, window, used in found)

    return in_transaction(work)


def _named(
    connection: Connection, book: QuotaBook, known: Mapping[Identity, Account], charges: Iterable[Charge]
) -> Mapping[tuple[str, Scope, str], Sequence[Quota]]:
    """The quotas of their own of whoever used something, where anybody of their scope has one.

    Those of customers are kept with them, and verified under their locks; others' are looked up each time.
    """
    customers = {i: account for i, account in known.items() if Scope.CUSTOMER in book.named.get(i[0], ())}
    own = accounts.own_quotas(connection, customers)
    found: defaultdict[tuple[str, Scope, str], list[Quota]] = defaultdict(list)
    for (tenant_id, customer_id), quotas in own.items():
        found[tenant_id, Scope.CUSTOMER, customer_id] += quotas
    asked = {
        (charge.event.tenant_id, scope, subject)
        for charge in charges
        for scope in book.named.get(charge.event.tenant_id, ())
        if scope is not Scope.CUSTOMER and (subject := WHO[scope](charge.event))
    }
    for quota in catalogue.named_quotas(connection, asked) if asked else ():
        found[quota.tenant_id, quota.scope, quota.subject].append(quota)
    return found


def _parts(charges: Sequence[Charge]) -> Iterator[tuple[Counter, Quota, Charge, Decimal]]:
    """What each charge adds to which counters of its quotas; where it is nothing, it is left out."""
    moments = [charge.event.occurred_at for charge in charges]
    calendars: dict[tuple[Per, str], list[date]] = {}
    for place, charge in enumerate(charges):
        tokens, cost = charge.rated.tokens, charge.rated.cost
        for quota, subject in charge.quotas:
            if amount := quota.amount(tokens, cost):
                calendar = (quota.per, quota.time_zone)
                windows = calendars.get(calendar)
                if windows is None:
                    windows = calendars[calendar] = windows_of(moments, *calendar)
                yield (quota.tenant_id, quota.quota_id, subject, windows[place]), quota, charge, amount


def _mark(connection: Connection, charges: Sequence[Charge], exceeded: Mapping[Counter, Total]) -> None:
    """Mark those of the charges that went over, of the counters that are over their limits with them."""
    limits: dict[Counter, Decimal] = {}
    parts: defaultdict[Counter, list[tuple[Charge, Decimal]]] = defaultdict(list)
    for counter, quota, charge, amount in _parts(charges):
        if counter in exceeded:
            limits[counter] = quota.limit
            parts[counter].append((charge, amount))
    marked = {
        (charge.event.tenant_id, charge.event.key)
        for counter, added in parts.items()
        for (charge, _), is_over in zip(
            added, over(exceeded[counter].used, [amount for _, amount in added], limits[counter]), strict=True
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
