"""Where what happened in a year is not what had to: each contradiction in words. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from billing.money import written
from db.happened import FeeLine, GrantFact, PaymentFact, PeriodFact, StatementFact, WalletFact
from sandbox.stripe_double.control import LedgerEntry
from sandbox.year_expected import Month
from sandbox.year_plan import TOP_UP_CREDITS

F = TypeVar("F", PeriodFact, PaymentFact, GrantFact, StatementFact)

#: A step takes less than this, however slow the machine is.
STEP_TAKES = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that happened, as our rows and the double of Stripe have it."""

    periods: Sequence[PeriodFact]
    payments: Sequence[PaymentFact]
    grants: Sequence[GrantFact]
    wallets: Sequence[WalletFact]
    statements: Sequence[StatementFact]
    fee_lines: Sequence[FeeLine]
    taken: Mapping[str, LedgerEntry]
    """by payment"""


def compared(expected: Mapping[str, Sequence[Month]], facts: Facts, now: datetime) -> Iterator[str]:
    """Every contradiction."""
    periods, payments, grants = _by(facts.periods), _by(facts.payments), _by(facts.grants)
    statements, wallets = _by(facts.statements), {one.customer_id: one for one in facts.wallets}
    told = {(one.customer_id, one.period_start): one.lines for one in facts.fee_lines}
    for name in sorted(wallets.keys() ^ expected.keys()):
        yield f"{name}: a customer that is {'not expected' if name in wallets else 'missing'}"
    for name, months in expected.items():
        problems = [
            *_of_periods(months, [one for one in periods[name] if not _is_tail(one, months, now)]),
            *_of_fees(months, [one for one in payments[name] if one.kind == "subscription"]),
            *_of_tiers(months, [one for one in payments[name] if one.kind == "tier"]),
            *_of_resets(months, [one for one in grants[name] if one.source == "free"], now),
            *_of_wallet(months, wallets.get(name), payments[name]),
            *_of_statements(months, statements[name], now),
            *_of_fee_lines(name, months, payments[name], told),
        ]
        yield from (f"{name}: {problem}" for problem in problems)
    yield from _of_numbers(facts.statements)
    yield from _of_stripe(facts.payments, facts.taken)


def _by(facts: Sequence[F]) -> defaultdict[str, list[F]]:
    found: defaultdict[str, list[F]] = defaultdict(list)
    for one in facts:
        found[one.customer_id].append(one)
    return found


def _is_tail(period: PeriodFact, months: Sequence[Month], now: datetime) -> bool:
    """Whether a period comes after the end of a subscription, and holds nothing.

    What is broken of the last free credits, days after the end, is told in a period of its own.
    """
    return months[-1].ends_at <= min(now, period.starts_at) and not period.events


def _named(starts_at: datetime) -> str:
    return f"the month from {starts_at:%Y-%m-%dT%H:%MZ}"


def _differing(where: str, facts: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    for name, (wanted, found) in facts.items():
        if wanted != found:
            yield f"{where}: {name}: expected {_said(wanted)}, found {_said(found)}"


def _said(value: Any) -> str:
    return written(value) if isinstance(value, Decimal) else str(value)


def _of_periods(months: Sequence[Month], periods: Sequence[PeriodFact]) -> Iterator[str]:
    found = {one.starts_at: one for one in periods}
    wanted = {one.starts_at: one for one in months}
    for starts_at in sorted(found.keys() ^ wanted.keys()):
        yield f"{_named(starts_at)} {'is not expected' if starts_at in found else 'is missing'}"
    for starts_at, month in wanted.items():
        if (period := found.get(starts_at)) is not None:
            yield from _differing(
                _named(starts_at),
                {
                    "its end": (month.ends_at, period.ends_at),
                    "plan": (month.plan.plan_id, period.plan_id),
                    "events": (month.events, period.events),
                    "late events": (month.late, period.late),
                    "tokens": (month.tokens, period.tokens),
                    "tiers": (month.tiers, period.tiers_reached),
                    "cost": (month.cost, period.cost),
                },
            )
            yield from _of_closing(month, period)


def _of_closing(month: Month, period: PeriodFact) -> Iterator[str]:
    where, closed_at = _named(month.starts_at), period.closed_at
    if (month.closes_at is None) != (closed_at is None):
        yield f"{where}: expected to be {'open' if month.closes_at is None else 'closed'}, and is not"
    elif month.closes_at and closed_at and not month.closes_at <= closed_at < month.closes_at + STEP_TAKES:
        yield f"{where}: expected to be closed at {month.closes_at}, was at {closed_at}"


def _of_fees(months: Sequence[Month], payments: Sequence[PaymentFact]) -> Iterator[str]:
    """One fee for each month that owes one; what was voided is no fee, and what was given back is taken off."""
    found: defaultdict[datetime, list[int]] = defaultdict(list)
    for one in payments:
        if one.state != "voided":
            found[one.period_start].append(one.amount_minor - one.refunded_minor)
    wanted = {one.starts_at: one.fee_minor for one in months if one.fee_minor}
    for starts_at in sorted(found.keys() | wanted.keys()):
        fees, fee = found[starts_at], wanted.get(starts_at)
        if fee is None and any(fees):
            yield f"{_named(starts_at)} owes no fee, and has {fees}"
        elif fee is not None and fees != [fee]:
            yield f"{_named(starts_at)} {_times(len(fees), 'fee')}: expected {fee}, found {fees}"


def _times(number: int, what: str) -> str:
    return {0: f"has no {what}", 1: f"has another {what}"}.get(number, f"has {number} {what}s")


def _of_tiers(months: Sequence[Month], payments: Sequence[PaymentFact]) -> Iterator[str]:
    found: defaultdict[datetime, list[int]] = defaultdict(list)
    for one in payments:
        if one.state != "voided":
            found[one.period_start].append(one.tier)
    wanted = {month.starts_at: list(range(1, month.tiers + 1)) for month in months}
    for starts_at in sorted(found.keys() | wanted.keys()):
        if sorted(found[starts_at]) != wanted.get(starts_at, []):
            yield f"{_named(starts_at)}: expected tiers {wanted.get(starts_at, [])}, found {sorted(found[starts_at])}"


def _of_resets(months: Sequence[Month], grants: Sequence[GrantFact], now: datetime) -> Iterator[str]:
    """Free credits once for each month that is paid for; and gone when its grace is over."""
    found: defaultdict[datetime | None, list[Decimal]] = defaultdict(list)
    for one in grants:
        found[one.period_start].append(one.amount)
        if one.remaining and one.breaks_at is not None and one.breaks_at <= now:
            yield f"free credits that ended on {one.breaks_at:%Y-%m-%d} still hold {written(one.remaining)}"
    wanted = {one.starts_at: one.credits for one in months if one.credits}
    for starts_at, amount in wanted.items():
        if found[starts_at] != [amount]:
            given = [written(one) for one in found[starts_at]]
            yield f"{_named(starts_at)} {_times(len(given), 'reset')}: expected {written(amount)}, found {given}"
    for unexpected in found.keys() - wanted.keys():
        yield f"free credits for {unexpected}, of which nothing is known"


def _of_wallet(months: Sequence[Month], wallet: WalletFact | None, payments: Sequence[PaymentFact]) -> Iterator[str]:
    """What came in, less what was used and what was broken, is what is there."""
    if wallet is None:
        return
    bought = sum(one.kind == "top_up" and one.is_paid for one in payments) * TOP_UP_CREDITS
    given = sum((month.credits for month in months), Decimal(0))
    used = sum((month.cost for month in months), Decimal(0))
    balance = given + bought - used - wallet.broken
    if balance != wallet.balance:
        parts = {"given": given, "bought": bought, "used": -used, "broken": -wallet.broken}
        said = ", ".join(f"{name} {written(Decimal(amount))}" for name, amount in parts.items())
        yield f"{said} come to {written(balance)}, and the wallet holds {written(wallet.balance)}"


def _of_statements(months: Sequence[Month], accounts: Sequence[StatementFact], now: datetime) -> Iterator[str]:
    """One for each month that is closed, each beginning where the last one ended, to the last digit."""
    stands: dict[tuple[str, str], Decimal] = {}
    for one in accounts:
        where = f"statement {one.number}"
        before = stands.get((one.account, one.currency), Decimal(0))
        if one.opening != before:
            yield f"{where} opens {one.account} with {written(one.opening)}; the last closed with {written(before)}"
        if one.opening + one.moved != one.closing:
            yield f"{where}: {one.account} {written(one.opening)} + {written(one.moved)} is not {written(one.closing)}"
        stands[one.account, one.currency] = one.closing
    keys = dict.fromkeys((one.period_start, one.number) for one in accounts)
    has_ended = months[-1].ends_at <= now
    found = [key for key in keys if not (has_ended and key[0] >= months[-1].ends_at)]
    closed = [month for month in months if month.closes_at is not None]
    if [starts_at for starts_at, _ in found] != [month.starts_at for month in closed]:
        times = Counter(f"{starts_at:%Y-%m-%d}" for starts_at, _ in found)
        yield f"expected statements of {[f'{one.starts_at:%Y-%m-%d}' for one in closed]}, found {dict(times)}"
        return
    heads = {one.period_start: one for one in accounts}
    for month in closed:
        head = heads[month.starts_at]
        wanted = (month.ends_at, month.tokens, month.events, month.tiers)
        if (head.period_end, head.tokens, head.events, head.tiers) != wanted:
            yield f"statement {head.number} tells of another month than that from {month.starts_at:%Y-%m-%d}"


def _of_fee_lines(
    name: str,
    months: Sequence[Month],
    payments: Sequence[PaymentFact],
    told: Mapping[tuple[str, datetime], int],
) -> Iterator[str]:
    """A statement tells each fee of its month, once."""
    owed = Counter(one.period_start for one in payments if one.kind == "subscription")
    for month in months:
        lines = told.get((name, month.starts_at), 0)
        if month.closes_at is not None and lines != owed[month.starts_at]:
            yield f"{_named(month.starts_at)}: its {owed[month.starts_at]} fee(s) are told in {lines} line(s)"


def _of_numbers(accounts: Sequence[StatementFact]) -> Iterator[str]:
    numbers = {one.number for one in accounts}
    for missing in sorted(set(range(1, len(numbers) + 1)) - numbers):
        yield f"there is no statement {missing}, and there are {len(numbers)}"


def _of_stripe(payments: Sequence[PaymentFact], taken: Mapping[str, LedgerEntry]) -> Iterator[str]:
    """Stripe took each payment that came in, once, and gave back what we gave back; and nothing else."""
    known: dict[UUID, PaymentFact] = {one.payment_id: one for one in payments}
    for stranger in taken.keys() - {str(one) for one in known}:
        yield f"Stripe took {taken[stranger].captured_minor} for {stranger}, which is no payment of ours"
    for payment_id, one in known.items():
        entry = taken.get(str(payment_id))
        captured = (entry.captured_minor, entry.refunded_minor, len(entry.succeeded_intents)) if entry else (0, 0, 0)
        wanted = (one.amount_minor, one.refunded_minor, 1) if one.is_paid else (0, 0, 0)
        if captured != wanted:
            yield f"payment {payment_id} ({one.state}): captured, refunded, times: expected {wanted}, found {captured}"
