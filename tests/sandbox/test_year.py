"""The reckoning of a simulated year, and how it is compared with what happened. All of it pure."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from config.settings import Settings
from db.happened import FeeLine, GrantFact, PaymentFact, PeriodFact, StatementFact, WalletFact
from sandbox import year_plan
from sandbox.stripe_double.control import LedgerEntry
from sandbox.year_beat import all_ticks
from sandbox.year_compared import Facts, compared
from sandbox.year_expected import Month, boundaries, expected, months_of
from sandbox.year_plan import Change, Kind, Options, Person, Year, draw
from worker.schedule import schedule

TICKS = all_ticks()
NOBODY = "customer-000"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def a_person(zone: str, plan: str, joins_at: datetime, *changes: Change) -> Person:
    return Person(NOBODY, zone, plan, joins_at, "pm_card_visa", True, 1.0, changes)


def starts(person: Person, until: str) -> list[str]:
    return [f"{month.starts_at:%Y-%m-%dT%H:%M}" for month in months_of(person, at(until))]


# What must come of it, against dates that anybody can look up.


@pytest.mark.parametrize(
    ("zone", "anchor_day", "since", "nexts"),
    [
        ("America/Sao_Paulo", 31, "2028-01-31T12:00", ["2028-02-29T03:00", "2028-03-31T03:00", "2028-04-30T03:00"]),
        ("America/New_York", 1, "2027-10-15T00:00", ["2027-11-01T04:00", "2027-12-01T05:00", "2028-01-01T05:00"]),
        ("Europe/Lisbon", 29, "2027-09-01T00:00", ["2027-09-28T23:00", "2027-10-28T23:00", "2027-11-29T00:00"]),
        ("Asia/Kathmandu", 1, "2027-12-31T18:14", ["2027-12-31T18:15", "2028-01-31T18:15"]),
        ("Pacific/Auckland", 1, "2027-09-15T00:00", ["2027-09-30T11:00", "2027-10-31T11:00"]),
        ("Pacific/Apia", 30, "2028-02-01T00:00", ["2028-02-28T11:00", "2028-03-29T11:00"]),
    ],
)
def test_months_begin_at_midnight_of_the_anchor_day(zone: str, anchor_day: int, since: str, nexts: list[str]) -> None:
    """Across both changes of daylight saving time, and a February of 29 days."""
    found = boundaries(zone, anchor_day, at(since))

    assert [f"{next(found):%Y-%m-%dT%H:%M}" for _ in nexts] == nexts


def test_a_move_across_the_date_line_makes_no_month_of_some_hours() -> None:
    """From Apia (+13) to Sao Paulo (-3): the month that begins next is sixteen hours longer."""
    moves = Change(at("2027-07-10T06:00"), Kind.ZONE, "America/Sao_Paulo")
    person = a_person("Pacific/Apia", "team", at("2027-07-05T06:00"), moves)

    assert starts(person, "2027-09-20T06:00") == ["2027-06-30T11:00", "2027-07-31T11:00", "2027-09-01T03:00"]


def test_a_month_that_is_longer_by_a_move_costs_one_fee() -> None:
    """From Kathmandu to New York: the month that begins is half a day longer than a February, and no part of one."""
    moves = Change(at("2028-01-12T06:00"), Kind.ZONE, "America/New_York")
    person = a_person("Asia/Kathmandu", "flex", at("2028-01-01T06:00"), moves)

    february = months_of(person, at("2028-02-20T06:00"))[-1]

    assert (february.starts_at, february.ends_at) == (at("2028-01-31T18:15"), at("2028-03-01T05:00"))
    assert february.fee_minor == 31_000


def test_a_change_now_begins_a_month_of_its_own() -> None:
    """Half of a month's fee for half a month where the plan counts days, and the new plan's whole fee."""
    now = at("2027-09-16T06:00")
    person = a_person("Asia/Kathmandu", "flex", at("2027-07-01T06:00"), Change(now, Kind.PLAN_NOW, "team-joined"))

    months = months_of(person, at("2027-10-20T06:00"))

    found = [(f"{one.starts_at:%m-%dT%H:%M}", one.plan.plan_id, one.fee_minor) for one in months]
    assert found == [
        ("06-30T18:15", "flex", 31_000),
        ("07-31T18:15", "flex", 31_000),
        ("08-31T18:15", "flex", 15_500),
        ("09-16T06:00", "team-joined", 44_000),
        ("10-15T18:15", "team-joined", 44_000),
    ]


def test_who_pauses_owes_nothing_for_months_that_begin_meanwhile() -> None:
    """But for the one in which they resume."""
    pauses, resumes = Change(at("2027-07-20T06:00"), Kind.PAUSE), Change(at("2027-09-10T06:00"), Kind.RESUME)
    person = a_person("Europe/Lisbon", "team", at("2027-07-01T06:00"), pauses, resumes)

    months = months_of(person, at("2027-10-02T06:00"))

    assert [one.fee_minor for one in months] == [40_000, 0, 40_000, 40_000]


def test_nobody_who_has_ended_has_a_month_more() -> None:
    person = a_person("Europe/Lisbon", "team", at("2027-07-01T06:00"), Change(at("2027-08-20T06:00"), Kind.END))

    assert starts(person, "2027-12-01T06:00") == ["2027-06-30T23:00", "2027-07-31T23:00"]


def test_steady_customers_have_a_fee_for_each_month_of_any_year() -> None:
    """Whatever the seed, and whoever changes plan or zone on whatever day."""
    for seed in range(5):
        year = draw(Options(customers=60, seed=seed), TICKS)
        found = expected(year)

        for person in year.people:
            if person.is_steady:
                assert sum(month.fee_minor > 0 for month in found[person.customer_id]) == 12, (seed, person)


def test_the_same_seed_is_the_same_year() -> None:
    assert draw(Options(2, 5, 3), TICKS) == draw(Options(2, 5, 3), TICKS)


def test_nothing_is_said_in_the_outage_and_everything_at_the_end() -> None:
    year = draw(Options(), TICKS)
    begins_at, ends_at = year.outage

    assert ends_at - begins_at == timedelta(days=40)
    assert all(not step.times for step in year.steps if begins_at <= step.at < ends_at)
    assert any(year.uses.get(step.at) for step in year.steps if begins_at <= step.at < ends_at)
    assert set(year.steps[-1].times.values()) == {1}


def test_beat_and_the_simulation_say_the_same_ticks() -> None:
    table = schedule(Settings(environment="sandbox", database_url="x", broker_url="redis://x"))

    assert [entry["task"] for entry in table.values() if isinstance(entry["schedule"], float)] == TICKS


# Comparing: what agrees says nothing, and whatever is planted is found.


@pytest.fixture
def year() -> Year:
    return draw(Options(3, 10, 5), TICKS)


def agreeing(months: dict[str, list[Month]], now: datetime) -> Facts:
    """The facts of a year in which everything went as it must."""
    numbers = iter(range(1, 10_000))
    facts = Facts([], [], [], [], [], [], {})
    made: Any = {name: [] for name in ("periods", "payments", "grants", "wallets", "statements", "fee_lines")}
    for name, mine in months.items():
        broken = sum((one.credits for one in mine if one.ends_at + one.plan.grace <= now), Decimal(0))
        kept = sum((one.credits for one in mine), Decimal(0)) - broken - sum((one.cost for one in mine), Decimal(0))
        made["wallets"].append(WalletFact(name, kept, broken))
        for one in mine:
            _agree(name, one, made, numbers, now)
    taken = {str(one.payment_id): LedgerEntry("brl", 1, one.amount_minor, 0, 0, ["pi_1"]) for one in made["payments"]}
    return replace(facts, **made, taken=taken)


def _agree(name: str, one: Month, made: Any, numbers: Any, now: datetime) -> None:
    closed = one.closes_at
    made["periods"].append(
        PeriodFact(
            name, one.starts_at, one.ends_at, one.plan.plan_id, one.tokens, one.events, one.tiers, closed,
            None, one.late, one.cost,
        )
    )  # fmt: skip
    kinds = [("subscription", 0)] * bool(one.fee_minor) + [("tier", tier) for tier in range(1, one.tiers + 1)]
    for kind, tier in kinds:
        amount = one.fee_minor if kind == "subscription" else one.plan.tier_fee_minor
        made["payments"].append(
            PaymentFact(
                UUID(int=len(made["payments"]) + 1), name, kind, one.starts_at, tier, amount, 0, "succeeded",
                Decimal(0), True,
            )
        )  # fmt: skip
    if one.credits:
        ends_at = one.ends_at + one.plan.grace
        remaining = Decimal(0) if ends_at <= now else Decimal(1)
        made["grants"].append(GrantFact(name, "free", one.starts_at, one.credits, remaining, ends_at))
    if closed is not None:
        head = (name, next(numbers), one.starts_at, one.ends_at, one.tokens, one.events, one.tiers)
        made["statements"].append(StatementFact(*head, "due", "BRL", Decimal(0), Decimal(0), Decimal(0)))
        if one.fee_minor:
            made["fee_lines"].append(FeeLine(name, one.starts_at, 1, Decimal(one.fee_minor)))


def test_what_went_as_it_must_contradicts_nothing(year: Year) -> None:
    months = expected(year)

    assert list(compared(months, agreeing(months, year.ends_at), year.ends_at)) == []


def _first(rows: Sequence[Any], **wanted: Any) -> Any:
    return next(one for one in rows if all(getattr(one, name) == value for name, value in wanted.items()))


def _fee_is_there_twice(facts: Facts) -> Facts:
    fee = _first(facts.payments, kind="subscription", customer_id=NOBODY)
    twice = fee._replace(payment_id=UUID(int=9_999))
    taken = {**facts.taken, str(twice.payment_id): facts.taken[str(fee.payment_id)]}
    return replace(facts, payments=[*facts.payments, twice], taken=taken)


def _changed(facts: Facts, field: str, rows: list[Any]) -> Facts:
    changed: Any = {field: rows}
    return replace(facts, **changed)


def _without(field: str, **wanted: Any) -> Callable[[Facts], Facts]:
    def plant(facts: Facts) -> Facts:
        rows = list(getattr(facts, field))
        rows.remove(_first(rows, **wanted))
        return _changed(facts, field, rows)

    return plant


def _with(field: str, wanted: dict[str, Any], **changed: Any) -> Callable[[Facts], Facts]:
    def plant(facts: Facts) -> Facts:
        rows = list(getattr(facts, field))
        place = rows.index(_first(rows, **wanted))
        rows[place] = rows[place]._replace(**changed)
        return _changed(facts, field, rows)

    return plant


def _captured(minor: int, times: int) -> Callable[[Facts], Facts]:
    def plant(facts: Facts) -> Facts:
        name = next(iter(facts.taken))
        entry = replace(facts.taken[name], captured_minor=minor, succeeded_intents=["pi"] * times)
        return replace(facts, taken={**facts.taken, name: entry})

    return plant


def _stranger(facts: Facts) -> Facts:
    return replace(facts, taken={**facts.taken, "stranger": next(iter(facts.taken.values()))})


def _reset_is_there_twice(facts: Facts) -> Facts:
    return replace(facts, grants=[*facts.grants, _first(facts.grants, customer_id=NOBODY)])


ONE = {"customer_id": NOBODY}
CONTRADICTIONS: dict[str, tuple[Callable[[Facts], Facts], str]] = {
    "a fee twice": (_fee_is_there_twice, "has 2 fees"),
    "no fee": (_without("payments", kind="subscription", **ONE), "has no fee"),
    "another fee": (_with("payments", {"kind": "subscription", **ONE}, amount_minor=1), "has another fee"),
    "a reset twice": (_reset_is_there_twice, "has 2 resets"),
    "no reset": (_without("grants", **ONE), "has no reset"),
    "credits that outlive their month": (_with("grants", {"remaining": 0}, remaining=Decimal(3)), "still hold 3"),
    "a month that is missing": (_without("periods", **ONE), "is missing"),
    "another end": (_with("periods", ONE, ends_at=at("2027-07-09T00:00")), "its end"),
    "tokens that are missing": (_with("periods", ONE, tokens=-1), "tokens: expected"),
    "another cost": (_with("periods", ONE, cost=Decimal("0.01")), "cost: expected"),
    "closed too early": (_with("periods", ONE, closed_at=at("2027-07-09T00:00")), "expected to be"),
    "a tier too many": (_with("payments", {"kind": "subscription"}, kind="tier", tier=1), "expected tiers"),
    "another balance": (_with("wallets", ONE, balance=Decimal(-1)), "the wallet holds -1"),
    "no statement": (_without("statements", **ONE), "expected statements of"),
    "a number twice": (_with("statements", {"number": 2}, number=1), "there is no statement"),
    "statements that do not go on": (_with("statements", ONE, opening=Decimal(5), closing=Decimal(5)), "opens due"),
    "a statement that does not add up": (_with("statements", ONE, closing=Decimal(5)), "is not 5"),
    "a fee that no statement tells": (_without("fee_lines", **ONE), "are told in 0 line(s)"),
    "captured twice": (_captured(80_000, 2), "captured, refunded, times"),
    "not captured": (_captured(0, 0), "captured, refunded, times"),
    "captured for nobody": (_stranger, "no payment of ours"),
    "nobody there": (_without("wallets", **ONE), "is missing"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_was_planted_is_found(name: str, year: Year) -> None:
    plant, said = CONTRADICTIONS[name]
    months = expected(year)

    found = list(compared(months, plant(agreeing(months, year.ends_at)), year.ends_at))

    assert any(said in one for one in found), found


def test_the_plans_of_the_year_have_a_fee_and_credits_for_every_month() -> None:
    """Else a year of twelve fees and twelve resets would say little."""
    assert all(plan.fixed_fee_minor and plan.free_credits for plan in year_plan.PLANS.values())
