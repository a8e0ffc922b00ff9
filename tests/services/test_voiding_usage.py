"""Voiding an event: the same grants get back what it took, its period counts it no more, and nothing is rewritten."""

import threading
from decimal import Decimal

import psycopg
import pytest

from billing.errors import EventNotFound, Rejected
from config.settings import settings
from services.cycle import closing, months, statements
from services.desk.prices import load_prices
from services.metering.parked import replay_all
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, an_envelope, an_event, tokens
from tests.looking import Entry, entries, one, rows, wallet
from tests.services.correcting import (
    DAY,
    DECEMBER,
    NOVEMBER,
    OCTOBER,
    a_ladder,
    a_price,
    corrections,
    event,
    given,
    month_turns,
    remaining,
    seconds,
    set_up,
    used,
)

pytestmark = pytest.mark.usefixtures("billing_database")

LATER = OCTOBER + DAY


def test_a_voided_event_gives_back_what_it_took() -> None:
    """By an entry of its own; what the event was stays in its row."""
    set_up()
    given("10", "g")
    used("k", 4)
    before = event("k", "cost, items, period_start, charged_at, tokens, currency")

    voided = void(TENANT, "k", "a mistake", LATER)

    assert (voided.cost, voided.currency, voided.tokens, voided.is_new) == (Decimal(4), "USD", 0, True)
    assert entries("ana")[-1] == Entry(3, "void", Decimal(4), Decimal(10))
    assert remaining() == {"g": 10, "debt": 0}
    assert event("k") == ("voided", "a mistake")
    assert event("k", "cost, items, period_start, charged_at, tokens, currency") == before
    assert corrections() == [("void", "k", 0, Decimal(-4))]
    assert one("SELECT used_total, received_total FROM wallets") == (0, 10)
    assert one("SELECT tokens, events FROM periods") == (0, 0)


def test_voided_twice_is_voided_once_and_answers_the_same() -> None:
    set_up()
    used("k", 4)
    first = void(TENANT, "k", "a mistake", LATER)
    before = (entries("ana"), corrections("*"), event("k", "*"))

    again = void(TENANT, "k", "another reason", LATER + DAY)

    assert (again.cost, again.voided_at, again.reason, again.is_new) == (
        Decimal(4),
        first.voided_at,
        "a mistake",
        False,
    )
    assert (entries("ana"), corrections("*"), event("k", "*")) == before


def test_what_is_sent_again_after_its_void_is_a_duplicate() -> None:
    set_up()
    used("k", 4)
    void(TENANT, "k", "a mistake", LATER)

    outcome = used("k", 4)

    assert (outcome.charged, outcome.duplicates) == (0, 1)
    assert wallet("ana") == 0


def test_what_was_split_over_grants_goes_back_to_each() -> None:
    set_up()
    given("3", "first", priority=1)
    given("3", "second", priority=2)
    used("k", 8)

    void(TENANT, "k", "a mistake", LATER)

    assert remaining() == {"first": 3, "second": 3, "debt": 0}


def test_debt_that_was_paid_since_goes_back_to_who_paid_it() -> None:
    set_up()
    used("k", 8)
    given("5", "paid", LATER)

    void(TENANT, "k", "a mistake", LATER + DAY)

    assert remaining() == {"paid": 5, "debt": 0}


def test_what_goes_back_to_a_grant_whose_time_is_over_is_broken() -> None:
    """As it would have been, had it never been used."""
    set_up()
    given("10", "g", expires_at=OCTOBER + DAY)
    used("k", 4)
    month_turns(NOVEMBER)
    assert wallet("ana") == 0

    void(TENANT, "k", "a mistake", NOVEMBER)
    month_turns(NOVEMBER)

    assert [(entry.kind, entry.amount) for entry in entries("ana")][-2:] == [
        ("void", Decimal(4)),
        ("breakage", Decimal(-4)),
    ]
    assert wallet("ana") == 0


def test_an_event_that_cost_nothing_is_voided_without_an_entry() -> None:
    set_up(plan="tiers-8m")
    record_usage(an_envelope(an_event("ana", [tokens(500)], key="k", occurred_at=OCTOBER)), OCTOBER)

    voided = void(TENANT, "k", "a mistake", LATER)

    assert (voided.tokens, voided.cost, voided.currency) == (500, Decimal(0), None)
    assert entries("ana") == []
    assert corrections() == [("void", "k", -500, 0)]
    assert one("SELECT tokens, events FROM periods") == (0, 0)


def test_a_parked_event_is_voided_and_never_charged() -> None:
    set_up()
    record_usage(an_envelope(an_event("ana", [seconds(4, model="unheard-of")], key="k", occurred_at=OCTOBER)), OCTOBER)

    voided = void(TENANT, "k", "a mistake", LATER)
    again = void(TENANT, "k", "a mistake", LATER)
    load_prices([a_price("1", model="unheard-of")], LATER)

    assert (voided.cost, voided.is_new, again.is_new) == (Decimal(0), True, False)
    assert replay_all(LATER).tried == 0
    assert event("k") == ("voided", "a mistake")
    assert (entries("ana"), corrections()) == ([], [])


def test_what_was_parked_and_charged_later_is_found_by_when_it_was_charged() -> None:
    set_up()
    given("10", "g")
    record_usage(an_envelope(an_event("ana", [seconds(4, model="new")], key="k", occurred_at=OCTOBER)), OCTOBER)
    load_prices([a_price("1", model="new")], LATER)
    assert replay_all(LATER).charged == 1

    void(TENANT, "k", "a mistake", LATER + DAY)

    assert remaining() == {"g": 10, "debt": 0}


def test_an_event_of_a_closed_month_is_told_in_the_open_one() -> None:
    """Counters say what is; the statement stays as it was issued, and the next one tells of it."""
    set_up(plan="tiers-8m", currencies=("BRL", "USD"))
    items = [tokens(500), seconds(4)]
    record_usage(an_envelope(an_event("ana", items, key="k", occurred_at=OCTOBER)), OCTOBER)
    month_turns(NOVEMBER)
    told = rows("SELECT * FROM statements, statement_lines")

    void(TENANT, "k", "a mistake", NOVEMBER)

    assert rows("SELECT * FROM statements, statement_lines") == told
    assert rows("SELECT tokens, events, closed_at IS NULL FROM periods ORDER BY starts_at") == [
        (0, 0, False),
        (0, 0, True),
    ]
    month_turns(DECEMBER)
    lines = rows("SELECT number, kind, amount, reference->>'event_key' FROM statement_lines ORDER BY number, line")
    assert [line for line in lines if line[1] in {"void", "corrected"}] == [
        (2, "void", Decimal(4), "k"),
        (2, "corrected", Decimal(0), "k"),
    ]
    assert rows("SELECT number, tokens, events FROM statements ORDER BY number") == [(1, 500, 1), (2, 0, 0)]
    assert rows("SELECT opening, closing FROM statement_balances WHERE currency = 'USD' ORDER BY number") == [
        (0, -4),
        (-4, 0),
    ]


def test_what_is_voided_between_closing_and_its_statement_is_told_in_the_next() -> None:
    set_up(plan="tiers-8m", currencies=("BRL", "USD"))
    events = [an_event("ana", [tokens(8_000_001), seconds(4)], key=key, occurred_at=OCTOBER) for key in ("k", "l")]
    record_usage(an_envelope(*events), OCTOBER)
    months.turn_due(NOVEMBER)
    closing.close_due(NOVEMBER)

    void(TENANT, "k", "a mistake", NOVEMBER)
    statements.issue_due(NOVEMBER)

    assert one("SELECT tokens, events, tiers FROM statements") == (16_000_002, 2, 2)
    assert one("SELECT tokens, events, tiers_reached FROM periods ORDER BY starts_at") == (8_000_001, 1, 1)


def test_an_event_of_a_month_in_grace_is_told_there() -> None:
    set_up()
    used("k", 4)
    early = NOVEMBER - 9 * DAY
    month_turns(early)

    void(TENANT, "k", "a mistake", early)

    assert corrections("counted_in = told_in") == [(True,)]
    month_turns(NOVEMBER)
    assert rows("SELECT kind, amount FROM statement_lines ORDER BY line") == [("usage", -4), ("void", 4)]


def test_a_late_event_is_voided_where_it_counts() -> None:
    set_up()
    month_turns(NOVEMBER)
    used("k", 4, OCTOBER, now=NOVEMBER)
    assert event("k", "is_late") == (True,)

    void(TENANT, "k", "a mistake", NOVEMBER)

    assert rows("SELECT events FROM periods ORDER BY starts_at") == [(0,), (0,)]
    assert wallet("ana") == 0


def test_what_is_not_there_is_not_voided() -> None:
    set_up()
    with pytest.raises(EventNotFound, match="no such usage event"):
        void(TENANT, "nobody", "a mistake", OCTOBER)
    with pytest.raises(Rejected, match="a reason has"):
        void(TENANT, "nobody", "", OCTOBER)


def test_voids_and_usage_at_once_end_exact() -> None:
    """Two threads on one customer: the one voids what the other has charged, as it comes."""
    set_up()
    given("100", "g")
    for number in range(20):
        used(f"old-{number}", 1)

    def use() -> None:
        for number in range(20):
            used(f"new-{number}", 2)

    thread = threading.Thread(target=use)
    thread.start()
    for number in range(20):
        void(TENANT, f"old-{number}", "a mistake", LATER)
    thread.join()

    assert wallet("ana") == 60
    assert one("SELECT events FROM periods") == (20,)


def test_voided_by_two_at_once_is_voided_once() -> None:
    set_up()
    used("k", 4)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(void(TENANT, "k", "a mistake", LATER).is_new)) for _ in range(2)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [False, True]
    assert wallet("ana") == 0


@pytest.mark.parametrize(("first", "rest", "left"), [("2", "1", 70), ("1", "2", 70)])
@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_what_a_ladder_costs_less_comes_back(first: str, rest: str, left: int, key: str) -> None:
    """Ten seconds each: whichever is voided, two are left, and cost what twenty seconds do."""
    rungs = (("10", first), (None, rest))
    set_up(a_ladder(*rungs))
    given("100", "g")
    for one_key in ("a", "b", "c"):
        used(one_key, 10)

    void(TENANT, key, "a mistake", LATER)

    assert wallet("ana") == left
    assert one("SELECT quantity FROM period_quantities") == (20,)
    for other in {"a", "b", "c"} - {key}:
        void(TENANT, other, "a mistake", LATER)
    assert remaining() == {"g": 100, "debt": 0}
    assert rows("SELECT 1 FROM period_quantities") == []


def test_what_is_used_after_a_void_climbs_on_from_there() -> None:
    set_up(a_ladder(("10", "2"), (None, "1")))
    used("a", 10)
    used("b", 10)
    void(TENANT, "a", "a mistake", LATER)

    used("c", 10)

    assert wallet("ana") == -30


def test_a_ladder_of_thirds_comes_back_to_the_last_place() -> None:
    set_up(a_ladder(("10", "2"), (None, "1"), per=Decimal(3)))
    quantities = ["1.1", "3.7", "5.3", "2.9", "11"]
    for number, quantity in enumerate(quantities):
        used(str(number), quantity)

    void(TENANT, "1", "a mistake", LATER)

    left = sum(map(Decimal, quantities)) - Decimal("3.7")
    assert wallet("ana") == -((20 + left - 10) / 3).quantize(Decimal("1E-12"))


def test_an_event_on_two_ladders_climbs_down_both() -> None:
    set_up(a_ladder(("10", "2"), (None, "1")), a_ladder(("5", "3"), (None, "1"), model="other"))
    for key in ("a", "b"):
        both = [seconds(10), seconds(10, model="other")]
        record_usage(an_envelope(an_event("ana", both, key=key, occurred_at=OCTOBER)), OCTOBER)

    void(TENANT, "a", "a mistake", LATER)

    assert wallet("ana") == -(20 + 20)


def test_what_was_used_before_grants_were_kept_comes_back_as_a_grant() -> None:
    """To entries of that time all was debt, which nobody owes any more, and no grant has paid."""
    set_up()
    given("10", "g")
    used("k", 4)
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE ledger_entries SET grant_id = NULL")
        connection.execute("UPDATE credit_grants SET amount = 6, reason = 'carried_over'")
        connection.execute(
            "INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, reason,"
            " occurred_at, recorded_at, grant_id, parts, period_start) SELECT g.tenant_id, g.wallet_id, 3, 0, 6,"
            " 'adjustment', 'grants:adjustment', 'carried_over', p.starts_at, p.starts_at, g.grant_id,"
            " jsonb_build_object(g.grant_id::text, '6', 'debt', '6'), p.starts_at FROM credit_grants g, periods p"
        )
        connection.execute("UPDATE wallets SET last_seq = 3")

    void(TENANT, "k", "a mistake", LATER)

    assert wallet("ana") == 10
    assert rows("SELECT source, amount, remaining, reason FROM grants_remaining ORDER BY number") == [
        ("promo", 6, 6, "carried_over"),
        ("adjustment", 4, 4, "a mistake"),
    ]
