"""The SQL face: a document's own queries run as they stand there, and say what the services say."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from psycopg import errors
from psycopg.rows import dict_row

from billing.plans import Plan
from billing.tiers import tiers_owed
from config.settings import settings
from db.audit_role import AUDIT_ROLE
from db.scope import API_ROLE
from sandbox.postgres import PostgresServer
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.collecting.collect import claim_due
from services.cycle import subscriptions
from services.desk import history, overview
from services.desk.history import Asked, Unit
from services.metering import inbox
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.conftest import TEMPLATE
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, parked_reasons, rows
from tests.services.collecting import pays_with, taken

pytestmark = pytest.mark.usefixtures("billing_database")

#: The document's useful queries, to the letter; `user-uuid` is the customer's id there.
OF_THE_MONTH = "SELECT * FROM get_user_token_summary('user-uuid');"
BY_OPERATION = """
SELECT 
  operation_type,
  SUM(tokens_used) as total_tokens,
  COUNT(*) as operations
FROM token_consumption 
WHERE user_id = 'user-uuid'
  AND created_at >= date_trunc('month', NOW())
GROUP BY operation_type;
"""  # noqa: W291 - as they stand there
BY_TIER = """
SELECT 
  billing_tier,
  COUNT(*) as charges_count,
  SUM(amount_charged) as total_charged
FROM token_billing_charges 
WHERE user_id = 'user-uuid'
  AND created_at >= date_trunc('month', NOW())
GROUP BY billing_tier;
"""  # noqa: W291
USER = "user-uuid"
TIERS = read_plans("default")[0]
RECORD = "SELECT record_token_consumption(%s, %s, %s)"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def subscriber(billing_database: str) -> str:
    """Who pays R$ 400 for 8M tokens, and R$ 100 for each further 8M; months begin where the document's queries cut."""
    assert billing_database
    catalogues()
    return a_customer(USER, plan=TIERS.plan_id, currencies=("BRL",), time_zone="UTC")


@pytest.fixture
def face(billing_database: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """An application's own connection, each statement by itself."""
    with psycopg.connect(billing_database, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def asked(statement: str) -> list[dict[str, Any]]:
    """What a query of the document answers."""
    with psycopg.connect(settings().required("database_url"), row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


def used(quantity: int, operation: str = "chat", **fields: Any) -> None:
    record_usage(an_envelope(an_event(USER, [tokens(quantity)], operation=operation, **fields)), now())


def drained() -> int:
    total = 0
    while taken_now := inbox.drain(now()):
        total += taken_now
    return total


@pytest.mark.parametrize(
    ("quantity", "charges", "tier"),
    [
        (1_000_000, [], "0-8M"),
        (8_000_000, [], "0-8M"),
        (8_000_001, [("8M-16M", 1, 10_000)], "8M-16M"),
        (10_000_000, [("8M-16M", 1, 10_000)], "8M-16M"),
        (16_000_001, [("16M-24M", 1, 10_000), ("8M-16M", 1, 10_000)], "16M-24M"),
    ],
)
def test_what_is_written_by_sql_is_charged_as_the_document_says(
    subscriber: str, quantity: int, charges: list[tuple[str, int, int]], tier: str
) -> None:
    """Its own tests: a million tokens lie within the 8M and charge nothing, ten million charge one tier."""
    one(RECORD, subscriber, quantity, "chat")

    assert drained() == 1

    assert asked(BY_OPERATION) == [{"operation_type": "chat", "total_tokens": quantity, "operations": 1}]
    found = sorted(asked(BY_TIER), key=lambda row: str(row["billing_tier"]))
    assert [tuple(row.values()) for row in found] == charges
    (summary,) = asked(OF_THE_MONTH)
    assert summary["total_tokens"] == quantity
    assert summary["current_tier"] == tier
    assert summary["tier_charges_count"] == len(charges) == tiers_owed(quantity, TIERS)
    assert summary["tier_charges_total"] == 10_000 * len(charges)
    assert rows("SELECT * FROM usage_inbox") == []


def test_the_views_say_what_the_services_say(subscriber: str) -> None:
    """Several operations, a payment that went through, and usage that was taken back."""
    used(9_000_000, "chat")
    used(8_000_000, "embedding")
    used(3_000_000, "chat", key="mistake")
    void(TENANT, "mistake", "sent twice", now())
    pays_with("pm_card_visa", USER)
    for _, payment_id in claim_due(now()):
        taken(payment_id)

    (period,) = subscriptions.periods_of(TENANT, USER)
    payments = [p for p in overview.payments(TENANT, USER, None, 100) if p.kind == "tier"]
    fees = [p for p in overview.payments(TENANT, USER, None, 100) if p.kind == "subscription"]
    day = timedelta(days=1)
    buckets = history.aggregated(Asked(TENANT, USER, now() - day, now() + day, status="charged"), Unit.MONTH)

    (summary,) = asked(OF_THE_MONTH)
    assert summary == {
        "tenant_id": TENANT,
        "user_id": USER,
        "period": f"{period.starts_at:%Y-%m}",
        "period_start": period.starts_at,
        "period_end": period.ends_at,
        "total_tokens": period.tokens,
        "current_tier": "16M-24M",
        "current_tier_number": period.tiers_reached,
        "fixed_fee_charged": sum(p.amount_minor for p in fees),
        "tier_charges_count": len(payments),
        "tier_charges_total": sum(p.amount_minor for p in payments),
        "total_charged": sum(p.amount_minor for p in (*payments, *fees)),
        "currency": TIERS.payment_currency,
    }
    assert period.tokens == 17_000_000
    charges = asked("SELECT id, tier_number, amount_charged, status, created_at FROM token_billing_charges")
    assert {tuple(row.values()) for row in charges} == {
        (p.payment_id, p.tier, p.amount_minor, p.state, p.created_at) for p in payments
    }
    assert "succeeded" in {p.state for p in payments}
    by_operation = {row["operation_type"]: row["total_tokens"] for row in asked(BY_OPERATION)}
    assert by_operation == {"chat": 9_000_000, "embedding": 8_000_000}
    assert sum(by_operation.values()) == sum(bucket.tokens for bucket in buckets)


def test_a_past_period_is_named_by_its_month(subscriber: str) -> None:
    used(5)
    (period,) = subscriptions.periods_of(TENANT, USER)

    by_name = rows("SELECT total_tokens FROM get_user_token_summary(%s, %s)", USER, f"{period.starts_at:%Y-%m}")

    assert by_name == rows("SELECT total_tokens FROM get_user_token_summary(%s)", USER) == [(5,)]
    assert rows("SELECT * FROM get_user_token_summary(%s, '1999-12')", USER) == []
    assert rows("SELECT * FROM get_user_token_summary('nobody')") == []


@pytest.fixture(scope="module")
def asking(postgres: PostgresServer) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection on which functions are asked that read no rows."""
    name = "asked_functions"
    postgres.create_database(name, template=TEMPLATE)
    with psycopg.connect(postgres.uri(name), autocommit=True) as connection:
        yield connection
    postgres.drop_database(name)


plans = st.builds(
    lambda included, size: (included, size), st.integers(0, 10**15), st.one_of(st.none(), st.integers(1, 10**15))
)


@examples(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(plans, st.integers(0, 3), st.integers(-2, 2), st.integers(0, 10**17))
def test_postgres_finds_the_tier_that_the_rules_find(
    asking: psycopg.Connection[tuple[Any, ...]], plan: tuple[int, int | None], tier: int, beside: int, other: int
) -> None:
    """At each boundary, just beside it, and anywhere."""
    included, size = plan
    rule = _with(included, size)

    for used_tokens in (max(0, included + tier * (size or 0) + beside), other):
        said = asking.execute("SELECT calculate_billing_tier(%s, %s, %s)", (used_tokens, included, size)).fetchone()
        assert said == (tiers_owed(used_tokens, rule),)


def _with(included: int, size: int | None) -> Plan:
    return replace(TIERS, included_tokens=included, tier_size=size)


@pytest.mark.parametrize(
    ("tokens_used", "tier"),
    [(None, None), (0, 0), (8_000_000, 0), (8_000_001, 1), (16_000_000, 1), (16_000_001, 2)],
)
def test_without_a_plan_the_documents_tiers_are_meant(
    asking: psycopg.Connection[tuple[Any, ...]], tokens_used: int | None, tier: int | None
) -> None:
    assert asking.execute("SELECT calculate_billing_tier(%s::bigint)", (tokens_used,)).fetchone() == (tier,)


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        ((0, 8_000_000, 8_000_000), "0-8M"),
        ((1, 8_000_000, 8_000_000), "8M-16M"),
        ((2, 4_000_000, 8_000_000), "12M-20M"),
        ((1, 1_500, 500), "1500-2K"),
        ((0, 0, 1_000), "0-0"),
        ((0, 8_000_000, None), None),
    ],
)
def test_a_tier_is_called_by_where_it_begins_and_ends(
    asking: psycopg.Connection[tuple[Any, ...]], arguments: tuple[int, int, int | None], label: str | None
) -> None:
    assert asking.execute("SELECT token_tier_label(%s, %s, %s)", arguments).fetchone() == (label,)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, 1, "chat"), "user NULL used 1 tokens"),
        (("", 1, "chat"), "used 1 tokens"),
        ((USER, None, "chat"), "used NULL tokens"),
        ((USER, -1, "chat"), "used -1 tokens"),
    ],
)
def test_what_is_no_usage_is_refused_at_once(
    subscriber: str, face: psycopg.Connection[dict[str, Any]], arguments: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=said):
        face.execute(RECORD, arguments)

    assert rows("SELECT * FROM usage_inbox") == []


def test_metadata_that_is_no_object_is_refused(subscriber: str, face: psycopg.Connection[dict[str, Any]]) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="not array"):
        face.execute("SELECT record_token_consumption(%s, 1, metadata => '[1]')", (USER,))


def test_everything_that_is_said_is_on_the_event(subscriber: str) -> None:
    """Nulls in the metadata too, and the moment to the microsecond."""
    at = now() - timedelta(hours=1)
    (key,) = one(
        "SELECT record_token_consumption(%s, 7, 'resumo', 'client-9', %s::jsonb, 'k-1', %s, 'openai', 'gpt-4', 'stt')",
        USER,
        '{"conversationId": "conv-123", "agentId": null}',
        at,
    )
    assert drained() == 1

    assert key == "k-1"
    columns = "id, user_id, client_id, tokens_used, operation_type, metadata, created_at"
    statement = f"SELECT {columns} FROM token_consumption"
    assert rows(statement) == [
        ("k-1", USER, "client-9", 7, "resumo", {"conversationId": "conv-123", "agentId": None}, at)
    ]
    assert one("SELECT items->0->>'model', items->0->>'category' FROM usage_events") == ("gpt-4", "stt")


def test_without_a_key_each_call_is_an_event_of_its_own(subscriber: str) -> None:
    keys = {one(RECORD, USER, 1, "chat")[0] for _ in range(3)}

    assert drained() == len(keys) == 3
    assert asked(BY_OPERATION) == [{"operation_type": "chat", "total_tokens": 3, "operations": 3}]


def test_what_could_be_several_tenants_is_refused_until_one_is_set(
    subscriber: str, face: psycopg.Connection[dict[str, Any]]
) -> None:
    """Rows of two tenants are never added up; with one said, the same queries run."""
    used(3)
    tenants.create_tenant("other", "Other", now())

    for statement in (OF_THE_MONTH, BY_OPERATION, BY_TIER):
        with pytest.raises(errors.InvalidParameterValue, match="no tenant is set") as refused:
            face.execute(statement.encode())
        assert "SET centavo.tenant_id" in str(refused.value.diag.message_hint)
    with pytest.raises(errors.InvalidParameterValue, match="no tenant is set"):
        face.execute(RECORD, (USER, 1, "chat"))

    face.execute("SET centavo.tenant_id = 'other'")
    assert face.execute(OF_THE_MONTH.encode()).fetchall() == []
    face.execute("SET centavo.tenant_id = 'acme'")
    assert [row["total_tokens"] for row in face.execute(OF_THE_MONTH.encode())] == [3]


def test_what_cannot_be_charged_is_parked_where_it_is_seen(subscriber: str) -> None:
    """Somebody unknown, a model without a price on a plan that has no tiers, and a key with other usage under it."""
    a_customer("prepaid")
    one("SELECT record_token_consumption('nobody', 1)")
    one("SELECT record_token_consumption('prepaid', 1)")
    one("SELECT record_token_consumption(%s, 1, key => 'k')", USER)
    one("SELECT record_token_consumption(%s, 2, key => 'k')", USER)

    assert drained() == 4

    assert parked_reasons() == {"unknown_customer": 1, "unpriced": 1, "key_conflict": 1}
    assert asked(BY_OPERATION) == [{"operation_type": "chat", "total_tokens": 1, "operations": 1}]
    assert rows("SELECT * FROM usage_inbox") == []


def test_whoever_reads_for_the_audit_reads_the_views_too(subscriber: str) -> None:
    used(3)
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute(f"SET ROLE {AUDIT_ROLE}".encode())

        assert connection.execute("SELECT tokens_used FROM token_consumption").fetchall() == [(3,)]


def test_an_application_under_the_role_writes_and_reads_for_whom_it_says(
    subscriber: str, face: psycopg.Connection[dict[str, Any]]
) -> None:
    """Its own tenant's customers, or one of them; usage of others is refused, and theirs is not there."""
    a_customer("bob", plan=TIERS.plan_id, currencies=("BRL",), time_zone="UTC")
    face.execute(f"SET ROLE {API_ROLE}".encode())
    face.execute("SELECT set_config('centavo.tenant_id', %s, false)", (TENANT,))
    for customer_id in (subscriber, "bob"):
        face.execute(RECORD, (customer_id, 7, "chat"))
    assert drained() == 2

    face.execute("SELECT set_config('centavo.customer_id', 'bob', false)")
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        face.execute(RECORD, (subscriber, 1, "chat"))
    with pytest.raises(errors.CheckViolation):
        face.execute(
            "INSERT INTO usage_inbox (tenant_id, customer_id, event, written_at) VALUES (%s, 'bob', %s::jsonb, now())",
            (TENANT, json.dumps({"tenant_id": TENANT, "customer_id": subscriber})),
        )
    assert face.execute("SELECT user_id, tokens_used FROM token_consumption").fetchall() == [
        {"user_id": "bob", "tokens_used": 7}
    ]
    assert face.execute(OF_THE_MONTH.encode()).fetchall() == []
    assert rows("SELECT * FROM usage_inbox") == []
