"""Each check of the audit finds the one row that was made wrong behind everybody's back, and no other check does."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from billing.periods import calendar_month
from billing.prices import LadderSpan, Rung
from billing.quotas import Measure, Scope
from centavo import Item
from config.settings import SANDBOX_STRIPE_KEY
from db import audit
from db.prices import NewPrice
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.server import served
from services.books.credits import Grant, grant
from services.collecting import cards, gateways
from services.collecting.collect import claim_due, collect
from services.desk.credit_holds import HoldWish, reserve
from services.desk.prices import load_prices
from services.desk.quotas import Wanted, set_quota
from services.metering.recording import record_one
from services.metering.usage import record_usage
from tests.conftest import forget
from tests.db import test_audit_archived
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.services.monthly import everything

KEPT = "a wallet keeps its grants that have not ended, as they were given"


def _kept(amounts: str, **columns: str) -> str:
    """Change what wallets keep of their open grants."""
    more = "".join(f"{name} = {value}, " for name, value in columns.items())
    return f"""UPDATE wallets w SET {more}open_grants = (
        SELECT json_agg(json_build_array({amounts}, one->>2, one->>3, one->>4, one->>5) ORDER BY place)::text
        FROM json_array_elements(w.open_grants::json) WITH ORDINALITY AS o(one, place)
    ) WHERE open_grants <> '[]'"""


CORRUPTIONS: list[tuple[str, str]] = [
    (
        "wallet balance is the sum of its entries",
        "UPDATE wallets SET used_total = used_total + 1, received_total = received_total + 1 WHERE customer_id = 'ana'",
    ),
    (
        "wallet balance is the sum of its entries",
        "UPDATE wallets SET last_seq = last_seq + 1 WHERE customer_id = 'ana'",
    ),
    (
        "what a grant or a debt is, its entries made it",
        _kept("one->>0, (one->>1)::numeric + 1", debt="debt + json_array_length(open_grants::json)"),
    ),
    (
        "what a grant or a debt is, its entries made it",
        "UPDATE ledger_entries SET grant_id = NULL WHERE event_key = 'ana-1'",
    ),
    (
        "what a grant or a debt is, its entries made it",
        "UPDATE ledger_entries SET grant_id = gen_random_uuid() WHERE event_key = 'ana-1'",
    ),
    (
        "what a grant or a debt is, its entries made it",
        "UPDATE ledger_entries SET parts = '{\"debt\": \"0.03\"}' WHERE event_key = 'eve-1'",
    ),
    (KEPT, "UPDATE credit_grants SET ended_at = NULL WHERE ended_at IS NOT NULL"),
    (KEPT, "UPDATE credit_grants SET ended_at = created_at WHERE ended_at IS NULL"),
    (KEPT, "UPDATE credit_grants SET priority = priority + 1 WHERE ended_at IS NULL"),
    (KEPT, "UPDATE credit_grants g SET wallet_id = w.wallet_id FROM wallets w WHERE w.customer_id = 'bob'"),
    (
        "an entry's parts come to its amount",
        """UPDATE ledger_entries SET parts = jsonb_build_object(grant_id,
            amount + CASE event_key WHEN 'ana-1' THEN 1 ELSE -1 END)
        WHERE event_key IN ('ana-1', 'ana-2')""",
    ),
    (
        "each entry's balance follows from the one before",
        "UPDATE ledger_entries SET balance_after = balance_after + 0.000000000001 WHERE seq = 2 AND kind = 'usage'",
    ),
    (
        "each entry's balance follows from the one before",
        "UPDATE ledger_entries SET seq = seq + 100 WHERE event_key = 'ladder-2'",
    ),
    (
        "a charged event's cost is debited once, from its customer's wallet",
        "UPDATE ledger_entries SET event_key = 'ana-1' WHERE event_key = 'ana-2'",
    ),
    (
        "a charged event's cost is debited once, from its customer's wallet",
        "UPDATE ledger_entries SET event_key = 'nobody' WHERE event_key = 'ana-1'",
    ),
    (
        "a charged event's cost is debited once, from its customer's wallet",
        "UPDATE ledger_entries SET event_key = 'ana-2' WHERE event_key = 'ana-1'",
    ),
    (
        "a charged event's cost is debited once, from its customer's wallet",
        "UPDATE usage_events SET currency = 'EUR' WHERE key = 'ana-1'",
    ),
    (
        "an event's cost and tokens are those of its lines",
        """UPDATE usage_events SET items = jsonb_set(items, '{0,cost}', '"0.000000000001"') WHERE key = 'ana-1'""",
    ),
    (
        "an event's cost and tokens are those of its lines",
        """UPDATE usage_events SET items = jsonb_set(items, '{0,quantity}', '"1001"') WHERE key = 'ana-1'""",
    ),
    (
        "a period's tokens are those of its events",
        "UPDATE periods SET events = events + 1 WHERE customer_id = 'ana'",
    ),
    (
        "a period's tokens are those of its events",
        "UPDATE periods SET tokens = tokens - 1 WHERE customer_id = 'ana'",
    ),
    (
        "a ladder's quantities are those of its events",
        "UPDATE period_quantities SET quantity = quantity + 0.000000000001",
    ),
    ("a ladder's quantities are those of its events", "DELETE FROM period_quantities"),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE periods SET tiers_reached = 3 WHERE customer_id = 'bob'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "DELETE FROM payments WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE payments SET state = 'voided', due_at = NULL WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE payments SET tier = 7 WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE payments SET period_start = period_start + interval '1 s' WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "a tier payment asks for its plan's fee",
        "UPDATE payments SET amount_minor = amount_minor - 1 WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "a tier payment asks for its plan's fee",
        "UPDATE payments SET currency = 'USD' WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "only a payment that succeeded has an attempt that did, and one at most",
        "UPDATE payments SET state = 'uncollectible', succeeded_at = NULL WHERE state = 'succeeded'",
    ),
    (
        "what is owed once has one live payment",
        """INSERT INTO payments (tenant_id, payment_id, customer_id, period_start, kind, tier, generation, amount_minor,
            currency, state, due_at, created_at, updated_at)
        SELECT tenant_id, gen_random_uuid(), customer_id, period_start, kind, tier, 1, amount_minor, currency, state,
            due_at, created_at, updated_at FROM payments WHERE state = 'due'""",
    ),
    (
        "a top-up's value is what the wallet got of it",
        """INSERT INTO payments (tenant_id, payment_id, customer_id, period_start, kind, tier, generation, reference,
            amount_minor, currency, state, created_at, updated_at, succeeded_at, wallet_id, credit_amount, credit_given)
        SELECT tenant_id, gen_random_uuid(), customer_id, created_at, 'top_up', 0, 0, 'x', 1, 'BRL', 'succeeded',
            created_at, created_at, created_at, wallet_id, 5, 5
        FROM wallets WHERE customer_id = 'bob'""",
    ),
    (
        "a payment's attempts are those it counts",
        "UPDATE payments SET attempts_made = 0 WHERE state = 'succeeded'",
    ),
    ("a payment's attempts are those it counts", "UPDATE payment_attempts SET attempt = 2"),
    (
        "events belong to a customer, and entries to a wallet",
        """INSERT INTO usage_events (tenant_id, key, customer_id, status, occurred_at, recorded_at, is_late, tokens,
            cost, items, fingerprint, fingerprint_version, park_reason)
        VALUES ('acme', 'stray', 'nobody', 'parked', now(), now(), false, 0, 0, '[]', '', 1, 'unpriced')""",
    ),
    (
        "events belong to a customer, and entries to a wallet",
        """INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, occurred_at,
            recorded_at)
        VALUES ('acme', 0, 1, 0, 0, 'adjustment', 'x', now(), now())""",
    ),
]

HELD = "what a wallet reserves is what its open holds reserve"
CAPTURED = "what was captured of a hold, usage took"
OF_USAGE = "a capture is of charged usage that names its hold, and costs as much"
CORRUPTIONS += [
    (HELD, "UPDATE wallets SET reserved = reserved + 0.000000000001 WHERE customer_id = 'bob'"),
    (HELD, "UPDATE wallets SET reserved = 0 WHERE reserved > 0"),
    (HELD, "UPDATE credit_holds SET state = 'released', closed_at = expires_at WHERE state = 'open'"),
    (HELD, "UPDATE credit_holds SET amount = amount + 1 WHERE state = 'open'"),
    (
        CAPTURED,
        """WITH less AS (UPDATE credit_holds SET captured = captured - 0.01 WHERE state = 'open' RETURNING wallet_id)
        UPDATE wallets SET reserved = reserved + 0.01 WHERE wallet_id IN (SELECT wallet_id FROM less)""",
    ),
    (CAPTURED, "DELETE FROM credit_captures WHERE taken > 0"),
    (CAPTURED, "DELETE FROM credit_holds WHERE state = 'used_up'"),
    (OF_USAGE, "UPDATE credit_captures SET event_key = 'nobody' WHERE event_key = 'ana-2'"),
    (OF_USAGE, "UPDATE usage_events SET hold_id = 'another' WHERE key = 'ana-2'"),
    (OF_USAGE, "UPDATE credit_captures SET mark = NULL WHERE mark = 'beyond'"),
    (OF_USAGE, "UPDATE credit_captures SET event_key = 'parked' WHERE mark = 'unknown'"),
]

WAITS = "what waits is counted nowhere"
CORRUPTIONS += [
    (WAITS, "UPDATE usage_events SET charged_at = recorded_at WHERE key = 'parked'"),
    (WAITS, "UPDATE usage_events SET cost = 1, currency = 'USD' WHERE key = 'parked'"),
    (WAITS, "UPDATE usage_events SET period_start = recorded_at WHERE key = 'deferred'"),
    (WAITS, "UPDATE usage_events SET quota_ids = '{1}' WHERE key = 'deferred'"),
]

#: The last statement of all, and its customer's.
LAST = "(SELECT max(number) FROM statements)"
CORRUPTIONS += [
    (
        "each period begins where the last one ended",
        "UPDATE periods SET ends_at = ends_at - interval '1 hour' WHERE statement_number = 1",
    ),
    ("everybody's month turns, and not after their last period", "DELETE FROM month_turns WHERE customer_id = 'ana'"),
    (
        "everybody's month turns, and not after their last period",
        "UPDATE month_turns SET due_at = due_at + interval '1 hour' WHERE customer_id = 'ana'",
    ),
    (
        "everybody's month turns, and not after their last period",
        "UPDATE month_turns SET due_at = NULL WHERE customer_id = 'ana'",
    ),
    (
        "a statement's lines lead from its opening balances to its closing ones",
        f"UPDATE statement_balances SET closing = closing + 1 WHERE account = 'due' AND number = {LAST}",
    ),
    (
        "a statement's lines lead from its opening balances to its closing ones",
        f"DELETE FROM statement_lines WHERE kind = 'grant' AND number = {LAST} - 1",
    ),
    (
        "a statement opens as the last one closed",
        f"""
        UPDATE statement_balances SET opening = opening + 1, closing = closing + 1
        WHERE account = 'due' AND number = {LAST}
        """,
    ),
    (
        "statements are numbered without gaps, and each closed period has one of its own",
        "UPDATE statement_numbers SET last_number = last_number + 1",
    ),
    (
        "statements are numbered without gaps, and each closed period has one of its own",
        f"UPDATE periods SET statement_number = NULL WHERE statement_number = {LAST}",
    ),
    (
        "a statement tells of the tokens and the usage of its period",
        "UPDATE statements SET tokens = tokens + 1 WHERE number = 1",
    ),
    (
        "what statements told of a wallet, and what came since, is the wallet",
        f"""
        WITH told AS (
            UPDATE statement_lines SET amount = amount + 1 WHERE kind = 'grant' AND number = {LAST} RETURNING 1
        )
        UPDATE statement_balances b SET closing = closing + (SELECT count(*) FROM told)
        WHERE account = 'wallet' AND currency = 'CREDIT' AND number = {LAST}
        """,
    ),
]

#: What follows from others of the checks: whatever breaks it breaks one of them as well.
FOLLOWS = "a wallet's balance is what remains of its grants, less its debt"
CORRUPTIONS_OF_SEVERAL: list[tuple[set[str], str]] = [
    (
        {FOLLOWS, "wallet balance is the sum of its entries"},
        "UPDATE wallets SET balance = balance + 1, received_total = received_total + 1 WHERE customer_id = 'ana'",
    ),
    ({FOLLOWS, "what a grant or a debt is, its entries made it"}, "UPDATE wallets SET debt = debt + 1"),
    (
        {"a period's tokens are those of its events", "everybody's month turns, and not after their last period"},
        "DELETE FROM periods WHERE customer_id = 'ana'",
    ),
    (
        {FOLLOWS, "what a grant or a debt is, its entries made it"},
        _kept("one->>0, (one->>1)::numeric + 0.000000000001"),
    ),
    ({KEPT, FOLLOWS, "what a grant or a debt is, its entries made it"}, "UPDATE wallets SET open_grants = '[]'"),
]


# Corrections: what voids and new ratings left behind.
_CORRECT = """
INSERT INTO corrections (tenant_id, kind, event_key, customer_id, counted_in, told_in, tokens, cost, currency,
    wallet_id, seq, detail, reason, at)
SELECT u.tenant_id, {kind}, u.key, u.customer_id, u.period_start, u.period_start, 0, 0, u.currency, {entry},
    jsonb_build_object('lines', {lines}, 'burned', jsonb_build_object('debt', u.cost::text)), 'x', u.recorded_at
FROM usage_events u JOIN wallets w ON w.tenant_id = u.tenant_id AND w.customer_id = u.customer_id WHERE u.key = 'ana-1'
"""
CORRUPTIONS += [
    (
        "a void or a new rating is in the ledger",
        _CORRECT.format(kind="'rerate'", entry="w.wallet_id, 1", lines="u.items"),
    ),
    (
        "a voided event costs nothing, and was voided once",
        _CORRECT.format(kind="'void'", entry="NULL, NULL", lines="u.items"),
    ),
    (
        "a new rating says what its event costs, and has burned",
        _CORRECT.format(kind="'rerate'", entry="NULL, NULL", lines="'[]'::jsonb"),
    ),
]

COUNTERS = "a quota's counters are those of its events"
CORRUPTIONS += [
    (COUNTERS, "UPDATE quota_counts SET used = used + 0.000000000001"),
    (COUNTERS, "UPDATE quota_counts SET window_start = window_start - 40"),
    (COUNTERS, "DELETE FROM quota_counts"),
    ("an event counts in each quota that is for it", "UPDATE quotas SET subject = ''"),
]
CORRUPTIONS_OF_SEVERAL += [
    (
        {COUNTERS, "an event counts in each quota that is for it"},
        "UPDATE usage_events SET quota_ids = NULL WHERE key = 'ana-1'",
    ),
]


@pytest.fixture(scope="module")
def billed_database(shared_database: str) -> str:
    """Wallets debited, one into debt and out of it, a ladder climbed, two tiers reached, one of them collected."""
    with served(StripeDouble()) as double, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "DATABASE_URL": shared_database,
            "STRIPE_API_BASE": double,
            "STRIPE_SECRET_KEY": SANDBOX_STRIPE_KEY,
            "ENVIRONMENT": "sandbox",
        }.items():
            patch.setenv(f"CENTAVO_{name}", value)
        forget()
        _bill()
        forget()
    forget()
    return shared_database


def _bill() -> None:
    now = datetime.now(UTC)
    catalogues(now)
    ladder = (Rung(Decimal(1000), Decimal("0.01")), Rung(None, Decimal("0.005")))
    climbing = ("", "llm", "meta", "llama", "token", "USD", Decimal(0), Decimal(1), ladder, LadderSpan.PERIOD)
    load_prices([NewPrice(*climbing, False, False, datetime(2026, 1, 1, tzinfo=UTC), 0, None)], now)
    _bill_months(now)
    a_customer("ana", credit="100")
    a_customer("bob", plan="tiers-8m", currencies=("BRL",))
    a_customer("eve", credit="0.02")
    llama = tokens(700).model_copy(update={"category": "llm", "provider": "meta", "model": "llama"})
    held = reserve(HoldWish(TENANT, "ana", "held", Decimal(1), "USD"), now).hold_id
    small = reserve(HoldWish(TENANT, "eve", "small", Decimal("0.01"), "USD"), now).hold_id
    cards.attach(TENANT, "bob", "pm_card_visa", gateways.gateway(), now)
    of_ana = Wanted(TENANT, "events", Decimal(100), scope=Scope.CUSTOMER, subject="ana", measure=Measure.EVENTS)
    set_quota(of_ana, now - timedelta(minutes=10))
    record_usage(
        an_envelope(
            an_event("ana", key="ana-1"),
            an_event("ana", key="ana-2", hold_id=held),
            *[an_event("ana", [llama, tokens(5)], key=f"ladder-{n}") for n in range(3)],
            an_event("ana", [tokens(1, model="unheard-of")], key="parked"),
            an_event("bob", [tokens(16_000_001)], key="bob-1", hold_id="never was"),
            an_event("eve", key="eve-1", hold_id=small),
        ),
        now,
    )
    record_one(an_event("ana", key="deferred"), now, is_deferred=True)
    grant(Grant(TENANT, "eve", "USD", Decimal(5), "purchase", "top_up", "second:eve"), now)
    collect(*claim_due(now)[0], gateways.gateway(), now)


def _bill_months(now: datetime) -> None:
    """A customer of the last three months: credits of each, used and broken, and a statement of each that is over.

    Days are counted from the turn of the month: what there is is the same on each day of it.
    """
    turned, _ = calendar_month(now, "America/Sao_Paulo")
    then = turned - timedelta(days=80)
    a_customer("tom", plan="free", currencies=("CREDIT", "USD"), credit="1", now=then)
    everything(then)
    spoken = Item(category="stt", provider="openai", model="whisper-1", unit="second", quantity=Decimal(60))
    event = an_event("tom", [spoken], key="tom-1", occurred_at=then)
    record_usage(an_envelope(event), then)
    everything(turned - timedelta(days=10))


@pytest.fixture
def connection(billed_database: str) -> Iterator[psycopg.Connection]:
    """A transaction past every trigger and foreign key, rolled back with the test."""
    with psycopg.connect(billed_database) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection
        connection.rollback()


def found(connection: psycopg.Connection) -> dict[str, int]:
    differences = {check: audit.run(connection, check)[0] for check in audit.CHECKS}
    return {check: number for check, number in differences.items() if number}


def test_what_was_billed_agrees_with_itself(connection: psycopg.Connection) -> None:
    """And it is worth looking at: every table that a check reads has rows, and some entries have parts."""
    assert found(connection) == {}
    tables = (
        "statements",
        "statement_lines",
        "wallets",
        "credit_grants",
        "ledger_entries",
        "usage_events",
        "periods",
        "period_quantities",
        "payments",
        "credit_holds",
        "credit_captures",
        "quota_counts",
    )
    for table in (*tables, "payment_attempts"):
        assert connection.execute(f"SELECT count(*) > 0 FROM {table}".encode()).fetchone() == (True,), table
    assert connection.execute("SELECT array_agg(state ORDER BY state) FROM payments").fetchone() == (
        ["due", "succeeded"],
    )
    assert connection.execute("SELECT count(*) FROM ledger_entries WHERE parts ? 'debt'").fetchone() == (2,)


@pytest.mark.parametrize(("check", "corruption"), CORRUPTIONS)
def test_each_check_finds_what_it_looks_for(connection: psycopg.Connection, check: str, corruption: str) -> None:
    """And only that check: what it says is what is wrong."""
    changed = connection.execute(corruption.encode()).rowcount

    assert changed > 0
    assert found(connection).keys() == {check}


@pytest.mark.parametrize(("check", "corruption"), CORRUPTIONS)
def test_a_tenants_audit_finds_what_is_the_tenants(connection: psycopg.Connection, check: str, corruption: str) -> None:
    """The same rows as the audit of all of them, and nothing of it in the audit of somebody else."""
    connection.execute(corruption.encode())

    (number, shown), (of_all, shown_of_all) = audit.run(connection, check, TENANT), audit.run(connection, check)

    assert (number, sorted(shown)) == (of_all, sorted(shown_of_all))
    assert audit.run(connection, check, "other") == (0, [])


def test_a_second_debit_of_an_event_is_found_where_all_others_agree(connection: psycopg.Connection) -> None:
    """Everything else may follow from it: the wallet was debited, the balance says so."""
    connection.execute("""
        INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, event_key,
            occurred_at, recorded_at)
        SELECT tenant_id, wallet_id, 1000, amount, 0, kind, contra, event_key, occurred_at, recorded_at
        FROM ledger_entries WHERE event_key = 'ana-1'
    """)

    number, shown = audit.run(connection, "a charged event's cost is debited once, from its customer's wallet")

    assert (number, shown[0][1:3]) == (1, (TENANT, "ana-1"))
    assert shown[0].actual.startswith("2 ")


@pytest.mark.parametrize("lines", range(5))
@pytest.mark.parametrize("changed", ["cost", "quantity"])
def test_each_line_of_an_event_counts_however_many_there_are(
    connection: psycopg.Connection, lines: int, changed: str
) -> None:
    """Few lines are summed in another way than many."""
    said = {"lines": lines, "path": [str(max(lines - 1, 0)), changed]}
    connection.execute(
        """
        UPDATE usage_events u SET cost = %(lines)s * 0.03, tokens = %(lines)s * 1000, items = (
            SELECT coalesce(jsonb_agg(line), '[]') FROM (SELECT u.items->0 AS line) l, generate_series(1, %(lines)s)
        ) WHERE key = 'ana-1'
        """,
        said,
    )
    check = "an event's cost and tokens are those of its lines"
    before = audit.run(connection, check)

    connection.execute("UPDATE usage_events SET items = jsonb_set(items, %(path)s, '\"7\"') WHERE key = 'ana-1'", said)

    assert before == (0, [])
    assert audit.run(connection, check)[0] == (lines > 0)


@pytest.mark.parametrize(("checks", "corruption"), CORRUPTIONS_OF_SEVERAL)
def test_what_contradicts_two_others_is_found_by_both(
    connection: psycopg.Connection, checks: set[str], corruption: str
) -> None:
    """The balance stands between entries and grants: it is compared with either, and they with each other."""
    changed = connection.execute(corruption.encode()).rowcount

    assert changed > 0
    assert found(connection).keys() == checks


def test_every_check_is_tried() -> None:
    """A new check comes with a new line above."""
    of_archives = set().union(*(checks for checks, _ in test_audit_archived.CORRUPTIONS))
    assert audit.CHECKS.keys() == {check for check, _ in CORRUPTIONS} | {FOLLOWS} | of_archives


def test_a_difference_names_the_row_and_both_values(connection: psycopg.Connection) -> None:
    wallet = connection.execute("SELECT wallet_id FROM wallets WHERE customer_id = 'ana'").fetchone()
    assert wallet is not None
    connection.execute("UPDATE ledger_entries SET balance_after = 5 WHERE seq = 1 AND wallet_id = %s", wallet)

    number, shown = audit.run(connection, "each entry's balance follows from the one before")

    assert number == 1
    assert shown == [
        audit.Difference(
            "each entry's balance follows from the one before",
            TENANT,
            f"{wallet[0]} #1",
            "1 100.000000000000",
            "1 5.000000000000",
        )
    ]


def test_a_statement_of_no_period_names_whose_it_is(connection: psycopg.Connection) -> None:
    """What is only on one side of a comparison has a tenant as well."""
    connection.execute("UPDATE statements SET period_start = period_start + interval '1 s' WHERE number = 1")

    check = "statements are numbered without gaps, and each closed period has one of its own"
    _, shown = audit.run(connection, check)

    assert [(one.tenant_id, one.subject[:4]) for one in shown] == [(TENANT, "tom ")] * 2


def test_many_differences_are_counted_and_the_first_are_shown(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, occurred_at,"
        " recorded_at) SELECT 'acme', n, 1, 0, 0, 'adjustment', 'x', now(), now() FROM generate_series(1000, 1099) n"
    )

    number, shown = audit.run(connection, "events belong to a customer, and entries to a wallet")

    assert (number, len(shown)) == (100, audit.SHOWN_MAX)


def test_what_there_is_is_counted(connection: psycopg.Connection) -> None:
    """Every event has one status, so the counts of the statuses sum to the events."""
    counts = audit.counts(connection)

    assert counts == {
        "events": 10,
        "charged": 8,
        "pending": 1,
        "voided": 0,
        "parked_events": 1,
        "parked_inputs": 0,
        "entries": 16,
        "payments": 2,
    }
