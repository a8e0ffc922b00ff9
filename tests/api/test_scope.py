"""Whose rows a request is shown: its tenant's, or its customer's, whatever the code of its route forgets."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import pytest
from fastapi import Depends, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api import access, webhooks
from api.access import Admin, Caller, OfTenant, OverAll, Viewer, Writer
from api.app import V1, create_app
from billing.access import Capability, Through
from billing.quotas import Measure, Scope
from config import clock
from config.settings import settings
from db.scope import API_ROLE, as_tenant
from db.session import Connection, in_transaction
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from services.desk.access import Actor, create_key
from services.desk.quotas import Wanted, set_quota
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, claims, token, told
from tests.api.serving import served_api
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one

OTHER = "other"
SCOPES = {access.in_own_scope, access.in_scope_of_tenant, access.in_scope_of_all}

WHO = """
    SELECT current_user::text, nullif(current_setting('centavo.tenant_id', true), ''),
        nullif(current_setting('centavo.customer_id', true), ''),
        (SELECT array_agg(tenant_id || '/' || customer_id ORDER BY 1) FROM customers)
"""


def forgetful(connection: Connection) -> dict[str, Any]:
    """For whom this runs, and all customers there are: a statement without a tenant."""
    row = connection.execute(WHO.encode()).fetchone()
    assert row is not None
    return dict(zip(("role", "tenant", "customer", "customers"), row, strict=True))


def careless_app() -> FastAPI:
    """The API, with routes that read everything there is, each through one of the ways in."""
    app = create_app()
    for name, way in {
        "caller": Caller,
        "viewer": Viewer,
        "writer": Writer,
        "admin": Admin,
        "tenant": OfTenant,
        "all": OverAll,
    }.items():

        def read(_caller: Any) -> dict[str, Any]:
            return in_transaction(forgetful)

        read.__annotations__["_caller"] = way
        app.add_api_route(f"/v1/careless/{name}", read)
    app.add_api_route("/v1/careless/nobody", lambda: in_transaction(forgetful))
    return app


@pytest.fixture
def careless(billing_database: str, jwt_keys: object) -> Iterator[str]:
    """Its address, over two tenants who have an ana each."""
    assert billing_database
    settings.cache_clear()
    catalogues()
    a_customer("ana", credit="10")
    a_customer("bob", credit="5")
    tenants.create_tenant(OTHER, "Other", clock.now())
    tenants.load_plans(OTHER, read_plans("default"), clock.now())
    create_customers([NewCustomer(OTHER, "ana", "prepaid", "UTC", ("USD",))], clock.now())
    with served_api(careless_app()) as url:
        yield url


def seen(asker: Asker, way: str) -> tuple[str, str | None, str | None, list[str] | None]:
    found = asker.get(f"/v1/careless/{way}")
    assert found.status == 200, found.body
    return found.body["role"], found.body["tenant"], found.body["customer"], found.body["customers"]


OURS = [f"{TENANT}/ana", f"{TENANT}/bob"]


def test_a_route_that_forgets_its_tenant_sees_no_other_ones(careless: str) -> None:
    """By each way in, and by a server's key; under the role that can't bypass."""
    of_tenant = (API_ROLE, TENANT, None, OURS)

    for way, capability in {"caller": VIEW, "viewer": VIEW, "writer": WRITE, "admin": ADMIN, "tenant": VIEW}.items():
        assert seen(as_(careless, capability), way) == of_tenant, way
    assert seen(as_(careless, ADMIN, tenant_id=OTHER), "admin") == (API_ROLE, OTHER, None, [f"{OTHER}/ana"])
    assert seen(as_(careless, ADMIN, tenant_id="nobody"), "admin") == (API_ROLE, "nobody", None, None)
    made = create_key(TENANT, "web", [Capability.VIEW], Actor("root", Through.COMMAND_LINE), clock.now())
    for _ in range(2):  # found, and then kept
        assert seen(Asker(careless, made.secret), "caller") == of_tenant


def test_a_member_is_shown_the_own_rows_alone(careless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    member = as_(careless, subject="ana")
    before = seen(member, "caller")
    elsewhere = seen(as_(careless, subject="user-17", customer_id="bob"), "caller")
    of_tenant = seen(member, "tenant")

    monkeypatch.setenv("CENTAVO_API_MEMBERS_SEE", "tenant")
    settings.cache_clear()
    after = seen(member, "caller")

    assert before == (API_ROLE, TENANT, "ana", [f"{TENANT}/ana"])
    assert elsewhere == (API_ROLE, TENANT, "bob", [f"{TENANT}/bob"])
    assert of_tenant == after == (API_ROLE, TENANT, None, OURS)


def test_what_is_for_all_runs_as_the_worker_does_and_only_for_who_may_view(careless: str) -> None:
    role, tenant, customer, customers = seen(as_(careless, VIEW), "all")

    assert (tenant, customer, customers) == (None, None, [*OURS, f"{OTHER}/ana"])
    assert role != API_ROLE
    assert told(as_(careless, subject="ana").get("/v1/careless/all")) == (403, "forbidden")


def test_a_route_that_asks_nobody_who_they_are_reads_nothing(careless: str) -> None:
    """It fails, and does not read as the worker."""
    assert told(Asker(careless, None).get("/v1/careless/nobody")) == (500, "internal")


def test_a_request_does_not_inherit_the_scope_of_another_on_its_connection(careless: str) -> None:
    """Two in a row, of two tenants, sent at once: the server begins the second from within the first."""
    where = urlsplit(careless)
    bearers = [token(claims("root", ADMIN, tenant_id=tenant_id)) for tenant_id in (TENANT, OTHER, TENANT)]
    heads = [
        f"GET /v1/careless/admin HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {bearer}\r\n"
        f"Connection: {'close' if number == len(bearers) else 'keep-alive'}\r\n\r\n"
        for number, bearer in enumerate(bearers, 1)
    ]

    with socket.create_connection((where.hostname, where.port), timeout=15) as connection:
        connection.sendall("".join(heads).encode())
        answers = b""
        while piece := connection.recv(65536):
            answers += piece

    found = [json.loads(said) for said in re.findall(r"\{.*?\}", answers.decode())]
    assert [said["tenant"] for said in found] == [TENANT, OTHER, TENANT]
    assert [said["customers"] for said in found] == [OURS, [f"{OTHER}/ana"], OURS]


def ways_in(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for part in dependant.dependencies:
        if part.call is not None:
            yield part.call
        yield from ways_in(part)


def test_every_route_says_whose_rows_it_is_shown() -> None:
    """By one way in, and the wider ones are as few as they are listed here."""
    routers = [create_app().router, webhooks.router, *(module.routes for module in V1)]
    found = {
        route.path: {scope.__name__ for scope in SCOPES & set(ways_in(route.dependant))}
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    narrow = {access.in_own_scope.__name__}

    assert len(found) > 25
    assert {path: ways for path, ways in found.items() if ways != narrow} == {
        "/health": set(),
        "/metrics": set(),
        "/v1/info": set(),
        "/webhooks/stripe": set(),
        "/health/detailed": {"in_scope_of_all"},
        "/v1/reconciliation": {"in_scope_of_all"},
        "/v1/quotas/check": {"in_scope_of_tenant"},
        "/v1/customers/{customer_id:path}/affordability": {"in_scope_of_tenant"},
    }


def test_a_member_is_told_of_the_quotas_of_the_tenant(careless: str) -> None:
    """Which a customer's scope has none of: they would all be told yes."""
    wanted = Wanted(TENANT, "few", Decimal(10), scope=Scope.CUSTOMER, measure=Measure.TOKENS, is_hard=True)
    set_quota(wanted, clock.now() - timedelta(days=1))

    found = as_(careless, subject="ana").post("/v1/quotas/check", {"customer_id": "ana", "tokens": 11})

    assert (found.status, found.body["is_allowed"], found.body["refused_by"]) == (200, False, "few")
    assert told(as_(careless, subject="ana").post("/v1/quotas/check", {"customer_id": "bob"})) == (403, "forbidden")


def test_a_member_can_not_afford_what_a_quota_forbids(careless: str) -> None:
    """However much is in the wallet."""
    wanted = Wanted(TENANT, "few", Decimal(999), scope=Scope.CUSTOMER, measure=Measure.TOKENS, is_hard=True)
    set_quota(wanted, clock.now() - timedelta(days=1))

    found = as_(careless, subject="ana").post("/v1/customers/ana/affordability", {"items": [ITEM], "buffer": "1"})

    assert (found.status, found.body["is_affordable"], found.body["reason"]) == (200, False, "quota_exceeded")


ITEM = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "1000"}
QUESTIONS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/customers/ana/wallet", None),
    ("GET", "/v1/customers/ana/summary", None),
    ("GET", "/v1/customers/ana/ledger", None),
    ("GET", "/v1/customers/ana/holds", None),
    ("GET", "/v1/customers/ana/statements", None),
    ("GET", "/v1/usage?customer_id=ana", None),
    ("GET", "/v1/usage/aggregations?customer_id=ana", None),
    ("GET", "/v1/statistics?customer_id=ana", None),
    ("GET", "/v1/prices", None),
    ("GET", f"/v1/prices/lookup?{urlencode({name: ITEM[name] for name in list(ITEM)[:4]})}", None),
    ("POST", "/v1/customers/ana/affordability", {"cost": "1"}),
    ("POST", "/v1/customers/ana/affordability", {"items": [ITEM]}),
    ("POST", "/v1/quotes", {"customer_id": "ana", "items": [ITEM]}),
    ("POST", "/v1/quotas/check", {"customer_id": "ana", "tokens": 1}),
]


def test_a_customers_scope_hides_nothing_of_the_customers_own(careless: str) -> None:
    """A member is told of themselves what an administrator is."""
    root, member = as_(careless, ADMIN), as_(careless, subject="ana")
    root.post("/v1/usage", {"customer_id": "ana", "items": [ITEM]}, "of-ana")
    root.post("/v1/usage", {"customer_id": "bob", "items": [ITEM]}, "of-bob")
    root.post("/v1/customers/ana/holds", {"amount": "0.5", "currency": "USD"}, "a-hold")

    def answered(asker: Asker, method: str, path: str, body: Any) -> tuple[int, str]:
        found = asker.ask(method, path, json=body)
        return found.status, re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", json.dumps(found.body))

    for question in QUESTIONS:
        of_root, of_member = answered(root, *question), answered(member, *question)
        assert of_root[0] == 200, question
        assert of_member == of_root, question


def test_the_audits_findings_are_those_of_the_own_tenant(careless: str) -> None:
    """Read for all, where its turn stands, and kept apart by the route."""
    for tenant_id in (TENANT, OTHER):
        one(
            "INSERT INTO audit_differences (tenant_id, check_name, subject, expected, actual, first_seen_at,"
            " last_seen_at) VALUES (%s, 'c', %s, '1', '2', %s, %s) RETURNING 1",
            tenant_id,
            f"of {tenant_id}",
            clock.now(),
            clock.now(),
        )
    one("UPDATE audit_turn SET finished_at = %s RETURNING 1", clock.now())

    for tenant_id in (TENANT, OTHER):
        found = as_(careless, VIEW, tenant_id=tenant_id).get("/v1/reconciliation").body
        assert [difference["subject"] for difference in found["differences"]] == [f"of {tenant_id}"]
        assert found["finished_at"] is not None


def test_a_payments_webhooks_are_shown_with_it_and_others_are_not(careless: str) -> None:
    """What Stripe tells names no tenant: whose it is, its payment says."""
    root = as_(careless, ADMIN)
    top_up = {"currency": "USD", "credit_amount": "1", "amount_minor": 100, "payment_currency": "BRL"}
    payment_id = root.post("/v1/customers/ana/top-ups", top_up, "k1").body["payment_id"]
    for number, payment in enumerate((payment_id, None)):
        one(
            "INSERT INTO webhook_events (event_id, type, payload, created_at, received_at, source, due_at, payment_id)"
            " VALUES (%s, 'payment_intent.succeeded', '{}', %s, %s, 'delivered', %s, %s) RETURNING 1",
            f"evt_{number}",
            *[clock.now()] * 3,
            payment,
        )

    explained = root.get(f"/v1/payments/{payment_id}/explain").body

    assert [webhook["event_id"] for webhook in explained["webhooks"]] == ["evt_0"]
    for tenant_id, count in ((TENANT, 1), (OTHER, 0)):
        with as_tenant(tenant_id):
            found = in_transaction(
                lambda connection: connection.execute("SELECT event_id FROM webhook_events").rowcount
            )
            assert found == count


def test_dependencies_can_be_combined(careless: str) -> None:
    """A route that asks for a customer in sight and for a capability runs in one scope."""
    app = create_app()

    def read(_seen: access.Seen, _caller: Annotated[Any, Depends(access.needs(Capability.VIEW))]) -> Any:
        return in_transaction(forgetful)

    app.add_api_route("/v1/careless/{customer_id}", read)
    with served_api(app) as url:
        assert as_(url, VIEW).get("/v1/careless/ana").body["customers"] == OURS
