"""The oracle reckons by itself, and finds what is not as it had to be."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from chaos.compared import Verdict, compare
from chaos.emitted import Emitted, hash_of, read_logs
from chaos.facts import (
    Captured,
    EntryFact,
    EventFact,
    Facts,
    GrantFact,
    InputFact,
    PaymentFact,
    PeriodFact,
    WalletFact,
)
from chaos.oracle import line_cost
from chaos.world import GOOD, PLANS, PREPAID, PRICES, TIERED, CustomerOf, GrantOf, PriceOf, World

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MONTH = datetime(2026, 11, 1, 3, tzinfo=UTC)  # in São Paulo
ZONE = "America/Sao_Paulo"
GIFT = GrantOf("gift", "alpha", "eve", "BRL", Decimal("0.01"), "promo", 20)
WORLD = World(
    1,
    NOW,
    1000,
    PLANS,
    PRICES,
    (
        CustomerOf("alpha", "ana", TIERED, ZONE, ("BRL",), GOOD),
        CustomerOf("alpha", "eve", PREPAID, ZONE, ("BRL",)),
    ),
    (GIFT,),
)
PROMPT = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token"}
#: 300 times 0.17 by 3000
COST = Decimal("0.017")


def wire(customer: str, key: str, tokens: str = "300", **more: Any) -> bytes:
    fields = {
        "tenant_id": "alpha",
        "customer_id": customer,
        "key": key,
        "occurred_at": NOW.isoformat(),
        "items": [PROMPT | {"quantity": tokens}],
    }
    return json.dumps(fields | more).encode()


def emitted(*wires: bytes) -> Emitted:
    said = Emitted()
    for one in wires:
        said.add(one, NOW.timestamp(), is_required=True)
    return said


def an_event(customer: str, key: str, tokens: int, cost: Decimal) -> EventFact:
    items = [PROMPT | {"quantity": str(tokens), "price_id": None, "cost": str(cost)}]
    currency = "BRL" if cost else None
    return EventFact(
        "alpha", key, customer, "charged", NOW, MONTH, False, tokens, cost, currency, items, None, NOW.timestamp()
    )


SAID = (wire("ana", "a", "8000001"), wire("eve", "e"), wire("eve", "e"), wire("eve", "e", "301"), wire("bob", "b"))


def facts() -> Facts:
    """As it had to come: a tier of Ana's, a debit of Eve's from a grant and debt, a conflict, and a stranger."""
    balance = GIFT.amount - COST
    return Facts(
        events=[an_event("ana", "a", 8_000_001, Decimal(0)), an_event("eve", "e", 300, COST)],
        entries=[
            EntryFact("alpha", "eve", "BRL", 1, GIFT.amount, GIFT.amount, "grant", None, "gift", "g", None),
            EntryFact(
                "alpha", "eve", "BRL", 2, -COST, balance, "usage", "e", None, None, {"g": "-0.01", "debt": "0.007"}
            ),
        ],
        wallets=[
            WalletFact("alpha", "ana", "BRL", Decimal(0), Decimal(0), Decimal(0), Decimal(0), Decimal(0), 0),
            WalletFact("alpha", "eve", "BRL", balance, Decimal("0.007"), Decimal(0), COST, GIFT.amount, 2),
        ],
        grants=[GrantFact("alpha", "eve", "BRL", "g", GIFT.amount, Decimal(0), Decimal(0))],
        periods=[
            PeriodFact("alpha", "ana", MONTH, MONTH, 8_000_001, 1, 1),
            PeriodFact("alpha", "eve", MONTH, MONTH, 300, 1, 0),
        ],
        payments=[PaymentFact("alpha", "ana", "p", MONTH, "tier", 1, 0, 10_000, "BRL", "succeeded")],
        inputs=[
            InputFact(hash_of(wire("eve", "e", "301")), "key_conflict", 1),
            InputFact(hash_of(wire("bob", "b")), "unknown_customer", 3),
        ],
        captured={"p": Captured(10_000, 0, 1)},
    )


def judged(there: Facts, said: Emitted | None = None) -> Verdict:
    return compare(WORLD, (), said or emitted(*SAID), there)


def test_what_had_to_come_holds() -> None:
    verdict = judged(facts())

    assert verdict.differences == []
    assert verdict.holds
    assert (verdict.emitted, verdict.duplicates, verdict.conflicts) == (5, 1, 1)
    assert {one.name: one.actual for one in verdict.totals if one.name.startswith(("captured", "debts"))} == {
        "captured by Stripe, minor": 10_000,
        "debts alpha BRL": Decimal("0.007"),
    }


def corrupted() -> list[tuple[str, str, Facts]]:
    """(kind, what is named, facts that are wrong in one place)"""
    right = facts()
    event, entry, wallet = right.events[1], right.entries[1], right.wallets[1]
    cent = Decimal("0.000000000001")
    twice = [*right.entries, entry._replace(seq=3, balance_after=entry.balance_after - COST)]
    return [
        ("lost", "alpha/e", replace(right, events=right.events[:1])),
        ("lost", "input", replace(right, inputs=right.inputs[1:])),
        ("lost", "alpha/e, entries", replace(right, entries=right.entries[:1])),
        ("doubled", "alpha/e, entries", replace(right, entries=twice)),
        ("doubled", "event e charged", replace(right, entries=twice)),
        ("cents", "alpha/e, cost", replace(right, events=[right.events[0], event._replace(cost=COST + cent)])),
        ("cents", "its amount", replace(right, entries=[right.entries[0], entry._replace(amount=-COST - cent)])),
        ("cents", "balance after", replace(right, entries=[right.entries[0], entry._replace(balance_after=cent)])),
        (
            "cents",
            "took from",
            replace(right, entries=[right.entries[0], entry._replace(parts={"g": "-0.009", "debt": "0.008"})]),
        ),
        ("cents", "eve/BRL, balance", replace(right, wallets=[right.wallets[0], wallet._replace(balance=cent)])),
        ("cents", "grant g", replace(right, grants=[right.grants[0]._replace(remaining=cent)])),
        ("status", "alpha/e, status", replace(right, events=[right.events[0], event._replace(status="parked")])),
        ("tokens", "alpha/ana 2026-11-01", replace(right, periods=[right.periods[0]._replace(tokens=1)])),
        ("payment", "tier 1", replace(right, payments=[])),
        ("payment", "tier 2", replace(right, payments=[*right.payments, right.payments[0]._replace(tier=2)])),
        ("payment", "its state", replace(right, payments=[right.payments[0]._replace(state="unknown")])),
        ("captured", "payment p", replace(right, captured={"p": Captured(20_000, 0, 2)})),
        ("captured", "payment p", replace(right, captured={})),
        ("captured", "payment q", replace(right, captured={**right.captured, "q": Captured(1, 0, 1)})),
        ("stranger", "alpha/x", replace(right, events=[*right.events, event._replace(key="x")])),
        ("stranger", "input", replace(right, inputs=[*right.inputs, InputFact(b"?", "event_malformed", 1)])),
        ("parked", "input", replace(right, inputs=[right.inputs[0], right.inputs[1]._replace(reason="unpriced")])),
    ]


@pytest.mark.parametrize(("kind", "named", "there"), corrupted())
def test_whatever_is_wrong_is_named(kind: str, named: str, there: Facts) -> None:
    verdict = judged(there)

    assert [one for one in verdict.differences if one.kind == kind and named in one.subject] != []
    assert not verdict.holds


def with_a_deferred_one(status: str, cost: Decimal, *, period: datetime | None = None) -> Verdict:
    """Eve's usage under `d`, which its caller let wait, as it is found."""
    tokens = 300 if cost else 0
    found = an_event("eve", "d", tokens, cost)._replace(status=status, period_start=period, currency="BRL")
    there = facts()
    found = found._replace(items=[PROMPT | {"quantity": "300", "price_id": None, "cost": str(cost)}])
    wishes = {("alpha", "d"): "voided" if status == "voided" else "pending"}
    said = emitted(*SAID, wire("eve", "d"))
    return compare(WORLD, (), said, replace(there, events=[*there.events, found]), deferred=wishes)


def test_what_is_deferred_waits_with_its_cost_and_what_is_cancelled_costs_nothing() -> None:
    assert with_a_deferred_one("pending", COST).differences == []
    assert with_a_deferred_one("voided", Decimal(0)).differences == []


@pytest.mark.parametrize(
    ("status", "cost", "period", "kinds"),
    [
        ("charged", COST, None, {"status"}),
        ("pending", Decimal(0), None, {"cents", "tokens"}),
        ("pending", COST, MONTH, {"tokens"}),
        ("voided", COST, None, {"cents", "tokens"}),
    ],
)
def test_what_became_of_it_otherwise_is_named(
    status: str, cost: Decimal, period: datetime | None, kinds: set[str]
) -> None:
    found = with_a_deferred_one(status, cost, period=period)

    assert set(found.by_kind) <= kinds
    assert found.by_kind
    assert not found.holds


def test_an_event_more_in_the_log_is_missed() -> None:
    verdict = judged(facts(), emitted(*SAID, wire("eve", "never-recorded")))

    assert [(one.kind, one.subject) for one in verdict.differences] == [("lost", "event alpha/never-recorded")]


def test_of_a_killed_producer_the_last_event_is_undecided(tmp_path: Path) -> None:
    """A later line, though cut short, says that `emit` had returned. In memory, what was flushed must be there."""
    killed, cut_short, in_memory = tmp_path / "disk", tmp_path / "ledge", tmp_path / "memory"
    killed.write_bytes(b"E 1.0 %b\nE 2.0 %b\n" % (wire("eve", "1"), wire("eve", "2")))
    cut_short.write_bytes(b'E 1.0 %b\nE 3.0 {"cut' % wire("eve", "3"))
    in_memory.write_bytes(b"E 1.0 %b\nF\nE 2.0 %b\nE 2.5 %b\n" % tuple(wire("eve", key) for key in "456"))

    said = read_logs([killed, cut_short], [in_memory])

    required = {key[1]: variants[0].is_required for key, variants in said.events.items()}
    assert required == {"1": True, "2": False, "3": True, "4": True, "5": False, "6": False}
    assert said.undecided == 3


@pytest.mark.parametrize(
    ("price", "quantity", "cost"),
    [
        (PRICES[0], "1", "0.000056666667"),  # 0.17 by 3000, rounded once
        (PriceOf("", PRICES[0].product, "BRL", Decimal("0.0000000000005")), "1", "0"),  # half to even
        (PriceOf("", PRICES[0].product, "BRL", Decimal("0.0000000000015")), "1", "0.000000000002"),
        (PRICES[4], "2500", "0.48500000005"),  # 500 at 0.3, 1500 at 0.2, 500 at 0.0700000001
    ],
)
def test_a_line_costs_what_paper_and_pencil_say(price: PriceOf, quantity: str, cost: str) -> None:
    assert line_cost(price, Decimal(quantity)) == Decimal(cost)
