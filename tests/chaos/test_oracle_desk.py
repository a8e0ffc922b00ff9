"""The oracle knows holds, quotas and archives: what is not as it had to be in one of them is named."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from chaos.asked import Asked, Wish
from chaos.compared import Verdict, compare
from chaos.emitted import Context, Emitted
from chaos.facts import (
    AlertFact,
    ArchivedFact,
    CaptureFact,
    CountFact,
    EntryFact,
    Facts,
    GrantFact,
    HoldFact,
    PeriodFact,
    QuotaFact,
    WalletFact,
    WarningFact,
)
from chaos.stream import past
from chaos.wishes import ANOTHERS, LONG_SECONDS, NOBODYS, SHORT_SECONDS, plan
from chaos.world import PLANS, PREPAID, PRICES, CustomerOf, GrantOf, QuotaOf, World, world
from tests.chaos.test_oracle import COST, MONTH, NOW, ZONE, an_event, wire

LONG_AGO = datetime(2026, 4, 10, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
GIFTS = tuple(GrantOf(f"for {who}", "alpha", who, "BRL", Decimal(1), "promo", 20) for who in ("eve", "safe", "vet"))
QUOTA = QuotaOf("alpha", "tokens", "customer", limit=Decimal(400))
BUDGET = QuotaOf("alpha", "chat", "tenant", kind="budget", measure="cost", currency="BRL", limit=COST, feature="chat")
WORLD = World(
    1,
    NOW,
    1000,
    PLANS,
    PRICES,
    (
        CustomerOf("alpha", "eve", PREPAID, ZONE, ("BRL",)),
        CustomerOf("alpha", "safe", PREPAID, ZONE, ("BRL",), is_vault=True),
        CustomerOf("alpha", "vet", PREPAID, "UTC", ("BRL",), is_veteran=True),
    ),
    GIFTS,
    (QUOTA, BUDGET),
)
HELD = Decimal("0.03")
REST = HELD - COST
ENDS = NOW + timedelta(hours=1)
ASKED = Asked(
    {
        ("alpha", "w1"): Wish("eve", "BRL", HELD, 3600, hold_id="h1"),
        ("alpha", "w2"): Wish("safe", "BRL", COST, 3600, hold_id="h2"),
        ("alpha", "w3"): Wish("eve", "BRL", HELD, 3600, hold_id="h3"),
        ("alpha", "w4"): Wish("eve", "BRL", HELD, 3600, refused="insufficient_credits"),
    }
)


def said() -> Emitted:
    """Two of Eve's that name her hold, one that names nobody's, one of the vault, and one from long ago, twice."""
    emitted = Emitted()
    for customer, key, hold, feature in (
        ("eve", "a", "h1", "chat"),
        ("eve", "b", "h1", "chat"),
        ("eve", "c", "nobody's", None),
        ("safe", "s", "h2", None),
    ):
        emitted.add(wire(customer, key, hold_id=hold, feature=feature), NOW.timestamp(), is_required=True)
    for at in (LONG_AGO, NOW):
        emitted.add(wire("vet", "old", occurred_at=LONG_AGO.isoformat()), at.timestamp(), is_required=True)
    return emitted


def an_entry(customer: str, seq: int, amount: Decimal, after: Decimal, kind: str, **more: Any) -> EntryFact:
    entry = EntryFact("alpha", customer, "BRL", seq, amount, after, kind, None, None, f"g-{customer}", None)
    return entry._replace(**more)


def facts() -> Facts:
    """As it had to come: a hold used up beyond its amount, one open, a quota passed, a budget met, an archive."""
    context = Context(feature="chat", hold_id="h1")
    a, b = (
        an_event("eve", key, 300, COST)._replace(context=context, quota_ids=(1, 2), committed_at=at, over_quota=over)
        for key, at, over in (("a", 1.0, False), ("b", 2.0, True))
    )
    c = an_event("eve", "c", 300, COST)._replace(
        context=Context(hold_id="nobody's"), quota_ids=(1,), committed_at=3.0, over_quota=True
    )
    s = an_event("safe", "s", 300, COST)._replace(context=Context(hold_id="h2"), quota_ids=(1,), committed_at=4.0)
    old = an_event("vet", "old", 300, COST)._replace(
        occurred_at=LONG_AGO, period_start=APRIL, items=[], quota_ids=(1,), is_archived=True
    )
    one = Decimal(1)
    entries = [an_entry(who, 1, one, one, "grant", idempotency_key=f"for {who}") for who in ("eve", "safe", "vet")]
    entries += [
        an_entry("eve", 2, -COST, one - COST, "usage", event_key="a"),
        an_entry("eve", 3, -COST, one - 2 * COST, "usage", event_key="b"),
        an_entry("eve", 4, -COST, one - 3 * COST, "usage", event_key="c"),
        an_entry("safe", 2, -COST, one - COST, "usage", event_key="s"),
        an_entry("vet", 2, -COST, one - COST, "checkpoint"),
    ]
    used = {"eve": 3 * COST, "safe": COST, "vet": COST}
    return Facts(
        events=[a, b, c, s, old],
        entries=entries,
        wallets=[
            WalletFact("alpha", who, "BRL", one - cost, Decimal(0), HELD if who == "eve" else Decimal(0), cost, one, 4)
            for who, cost in used.items()
        ],
        grants=[GrantFact("alpha", who, "BRL", f"g-{who}", one, one - cost, Decimal(0)) for who, cost in used.items()],
        periods=[
            PeriodFact("alpha", "eve", MONTH, MONTH, 900, 3, 0),
            PeriodFact("alpha", "safe", MONTH, MONTH, 300, 1, 0),
            PeriodFact("alpha", "vet", APRIL, APRIL, 300, 1, 0),
        ],
        payments=[],
        inputs=[],
        captured={},
        holds=[
            HoldFact("alpha", "h1", "eve", "BRL", "w1", HELD, HELD, "used_up", NOW, ENDS, NOW),
            HoldFact("alpha", "h2", "safe", "BRL", "w2", COST, COST, "used_up", NOW, ENDS, NOW),
            HoldFact("alpha", "h3", "eve", "BRL", "w3", HELD, Decimal(0), "open", NOW, ENDS, None),
        ],
        captures=[
            CaptureFact("alpha", "a", "eve", "h1", COST, None, NOW),
            CaptureFact("alpha", "b", "eve", "h1", REST, "beyond", NOW),
            CaptureFact("alpha", "c", "eve", "nobody's", Decimal(0), "unknown", NOW),
            CaptureFact("alpha", "s", "safe", "h2", COST, None, NOW),
        ],
        quotas=[QuotaFact("alpha", 1, "tokens"), QuotaFact("alpha", 2, "chat")],
        counts=[
            CountFact("alpha", 1, "eve", date(2026, 11, 1), Decimal(900)),
            CountFact("alpha", 1, "safe", date(2026, 11, 1), Decimal(300)),
            CountFact("alpha", 1, "vet", date(2026, 4, 1), Decimal(300)),
            CountFact("alpha", 2, "", date(2026, 11, 1), 2 * COST),
        ],
        warnings=[
            WarningFact("alpha", number, subject, date(2026, 11, 1), limit, percent)
            for number, subject, limit in ((1, "eve", QUOTA.limit), (2, "", BUDGET.limit))
            for percent in (80, 100)
        ],
        alerts=[
            AlertFact("alpha", "quota_threshold", f"{name}#{number} {subject} 2026-11-01 {percent}% of {limit}", 1)
            for name, number, subject, limit in (("tokens", 1, "eve", QUOTA.limit), ("chat", 2, "", BUDGET.limit))
            for percent in (80, 100)
        ],
        archived=[ArchivedFact("alpha", "old", COST, -COST)],
    )


def judged(there: Facts, asked: Asked = ASKED) -> Verdict:
    return compare(WORLD, (), said(), there, asked=asked)


def test_what_had_to_come_holds() -> None:
    verdict = judged(facts())

    assert verdict.differences == []
    assert verdict.holds
    assert verdict.holds_there.marks == {"whole": 2, "beyond": 1, "unknown": 1}
    assert {one.name: one.actual for one in verdict.totals if one.name.startswith(("reserved", "events arch"))} == {
        "reserved alpha BRL": HELD,
        "events archived": 1,
    }


def rows_of(what: str) -> list[Any]:
    return list(getattr(facts(), what))


def with_rows(what: str, rows: list[Any]) -> Facts:
    more: dict[str, Any] = {what: rows}
    return replace(facts(), **more)


def changed(what: str, place: int, **values: Any) -> Facts:
    """The facts, with one row of one kind changed."""
    rows = rows_of(what)
    rows[place] = rows[place]._replace(**values)
    return with_rows(what, rows)


def without(what: str, place: int) -> Facts:
    """The facts, less one row."""
    rows = rows_of(what)
    del rows[place]
    return with_rows(what, rows)


def doubled(what: str, place: int, **values: Any) -> Facts:
    """The facts, and one row more."""
    rows = rows_of(what)
    return with_rows(what, [*rows, rows[place]._replace(**values)])


def unarchived() -> Facts:
    """The old event is in the tables as it was."""
    right = facts()
    old = right.events[4]._replace(is_archived=False, items=right.events[0].items)
    usage = right.entries[7]._replace(kind="usage", event_key="old")
    return replace(right, events=[*right.events[:4], old], entries=[*right.entries[:7], usage])


CENT = Decimal("0.000000000001")


def corrupted() -> list[tuple[str, str, Facts]]:
    """(kind, what is named, facts that are wrong in one place)"""
    return [
        ("hold", "hold alpha/w3", without("holds", 2)),
        ("hold", "hold alpha/w1", changed("holds", 0, amount=HELD + CENT)),
        ("hold", "hold alpha/w1, captured", changed("holds", 0, captured=COST)),
        ("hold", "hold alpha/w1, state", changed("holds", 0, state="open")),
        ("hold", "hold alpha/w3, state", changed("holds", 2, state="released", closed_at=NOW)),
        ("hold", "hold alpha/w3, state", changed("holds", 2, state="expired", closed_at=NOW)),
        ("hold", "hold alpha/w4", doubled("holds", 2, hold_id="h4", idempotency_key="w4")),
        ("stranger", "hold alpha/w5", doubled("holds", 2, hold_id="h5", idempotency_key="w5")),
        ("hold", "capture by alpha/a", without("captures", 0)),
        ("hold", "capture by alpha/x", doubled("captures", 0, event_key="x")),
        ("hold", "capture by a", changed("captures", 0, taken=HELD)),
        ("hold", "capture by b", changed("captures", 1, taken=COST, mark=None)),
        ("hold", "capture by b", changed("captures", 1, taken=Decimal(0), mark="expired")),
        ("hold", "capture by b", changed("captures", 1, taken=Decimal(0), mark="released")),
        ("hold", "capture by b", changed("captures", 1, at=ENDS)),
        ("hold", "capture by c", changed("captures", 2, taken=COST, mark=None)),
        ("hold", "vault of alpha", changed("captures", 3, mark="beyond", taken=Decimal(0))),
        ("hold", "vault alpha/safe, debt", changed("wallets", 1, debt=CENT)),
        ("cents", "eve/BRL, reserved", changed("wallets", 0, reserved=Decimal(0))),
        ("quota", "event alpha/a, its quotas", changed("events", 0, quota_ids=(1,))),
        ("quota", "quota alpha/tokens eve 2026-11-01, not marked", changed("events", 1, over_quota=False)),
        ("quota", "event alpha/c, over quota", changed("events", 2, over_quota=False)),
        ("quota", "event alpha/s, over a quota", changed("events", 3, over_quota=True)),
        ("quota", "quota alpha/tokens eve", changed("counts", 0, used=Decimal(901))),
        ("quota", "quota alpha/chat", without("counts", 3)),
        ("quota", "'bob'", doubled("counts", 0, subject="bob")),
        ("quota", "warning alpha tokens eve", without("warnings", 1)),
        ("quota", "warning alpha tokens safe", doubled("warnings", 0, subject="safe")),
        ("quota", "alert alpha tokens eve", changed("alerts", 0, times=2)),
        ("quota", "alert alpha tokens eve", without("alerts", 0)),
        ("status", "alpha/a, context", changed("events", 0, context=Context(feature="voice", hold_id="h1"))),
        ("stranger", "alpha/a", changed("events", 0, is_archived=True)),
        ("archive", "alpha/old, archived", unarchived()),
        ("archive", "alpha/old, in a file", without("archived", 0)),
        ("archive", "alpha/old, in a file", changed("archived", 0, moved=-COST - CENT)),
        ("cents", "vet/BRL, entry 2, its amount", changed("entries", 7, amount=-COST - CENT)),
        ("cents", "vet/BRL, archived usage", without("entries", 7)),
    ]


@pytest.mark.parametrize(("kind", "named", "there"), corrupted())
def test_whatever_is_wrong_is_named(kind: str, named: str, there: Facts) -> None:
    verdict = judged(there)

    assert [one for one in verdict.differences if one.kind == kind and named in one.subject] != []
    assert not verdict.holds


def test_what_comes_at_the_end_of_a_hold_takes_nothing() -> None:
    """The end is the hold's, by the clock of whoever records; of what was closed before, any clock says so."""
    late = changed("captures", 1, taken=Decimal(0), mark="expired", at=ENDS)
    over = late.holds[0]._replace(state="expired", captured=COST, closed_at=ENDS)

    assert judged(replace(late, holds=[over, *late.holds[1:]])).differences == []


def test_a_seed_decides_what_is_asked_for_and_used() -> None:
    one, same, other = (world(seed, NOW, 3, 1000) for seed in (7, 7, 8))

    assert (one, past(one)) == (same, past(same))
    plans = [[plan(there, "desk", number) for number in range(300)] for there in (one, same, other)]
    assert plans[0] == plans[1] != plans[2]
    assert {use.hold_id for asked in plans[0] for use in asked.uses} == {None, NOBODYS, ANOTHERS}
    assert {asked.seconds for asked in plans[0]} == {LONG_SECONDS, SHORT_SECONDS}


def test_a_hold_is_released_by_who_asked_for_it() -> None:
    released = changed("holds", 2, state="released", closed_at=NOW)
    wallets = [released.wallets[0]._replace(reserved=Decimal(0)), *released.wallets[1:]]

    assert judged(replace(released, wallets=wallets), replace(ASKED, released={("alpha", "h3"): True})).holds
    assert not judged(facts(), replace(ASKED, released={("alpha", "h3"): True})).holds
