"""Every route, attacked in every place that takes a text: by the OpenAPI document, so that a new route is among them.

Tokens that are none are in `test_access.py`, slow clients in `test_slow_clients.py`, scopes in `test_scope.py`.
"""

import copy
import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from api.app import create_app
from config import clock
from services.books import tenants
from services.books.catalogue_files import read_plans, read_prices
from services.books.customers import NewCustomer, create_customers
from services.desk.prices import load_prices
from tests.api.asking import ADMIN, Answered, Asker, as_, new_key, told
from tests.api.test_openapi import operations
from tests.factories import a_customer, catalogues
from tests.looking import rows

EVIL = "evil"
#: Stands in rows of the other tenant, and must come back in no answer.
MARK = "a-secret-of-the-others"
AN_ITEM = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "1000"}

#: For every text that an operation needs; those who attack replace one of them.
GIVEN = {
    "customer_id": "ana",
    "key": "event-0",
    "hold_id": "0b7e3f4e-0f0f-5f6a-9a53-0a1c6d5b7e11",
    "payment_id": "0b7e3f4e-0f0f-5f6a-9a53-0a1c6d5b7e11",
    "number": "1",
    "price_id": "1",
    "currency": "USD",
    "payment_method": "pm_card_visa",
    "plan_id": "prepaid",
    "name": "few",
    "feature": "chat",
    "by": "user_id",
    "category": "llm_prompt",
    "provider": "openai",
    "model": "gpt-4",
    "unit": "token",
}

HOSTILE = (
    "' OR '1'='1",
    "'; DROP TABLE wallets; --",
    '"; DELETE FROM usage_events; --',
    "1); SELECT pg_sleep(20); --",
    "ana' UNION SELECT secret_hash FROM api_keys --",
    "%(tenant_id)s %s %% {0} {tenant_id}",
    "$1 :tenant_id \\'; RESET ROLE; --",
    "'); SELECT set_config('centavo.tenant_id', 'evil', true); --",
)


class Operation(NamedTuple):
    """A route as its document says it: where texts go, and a body that is right."""

    method: str
    path: str
    places: tuple[tuple[str, str], ...]
    """(path or query, name)"""
    body: dict[str, Any] | None
    fields: tuple[tuple[str | int, ...], ...]
    """Where in the body a text stands, or may."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations_of_v1() -> Iterator[Operation]:
    document = create_app().openapi()
    schemas = document["components"]["schemas"]
    for method, path, said in operations(document):
        if not path.startswith("/v1"):
            continue
        places = tuple((one["in"], one["name"]) for one in said.get("parameters", []) if one["in"] != "header")
        body: dict[str, Any] | None = None
        fields: tuple[tuple[str | int, ...], ...] = ()
        if "requestBody" in said:
            name = said["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            body = schemas[name]["examples"][0]
            fields = tuple(texts(schemas[name], schemas))
        yield Operation(method.upper(), path, places, body, fields)


def texts(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Every place of a body where a text may stand."""
    if "$ref" in schema:
        yield from texts(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from texts(one, schemas)
    for name, said in schema.get("properties", {}).items():
        yield from ((name, *rest) for rest in texts(said, schemas))
    if schema.get("type") == "array":
        yield from ((0, *rest) for rest in texts(schema["items"], schemas))
    if schema.get("type") == "object" and "properties" not in schema:
        yield ("any",)
    if schema.get("type") == "string":
        yield ()


OPERATIONS = sorted(operations_of_v1(), key=str)


def asked(asker: Asker, what: Operation, changes: Mapping[tuple[str, str], str], body: Any = None) -> Answered:
    """Ask for an operation with what it needs, but for these texts in these places."""
    path, query = what.path, {}
    for place, name in what.places:
        value = changes.get((place, name), GIVEN.get(name))
        if place == "path":
            assert value is not None, name
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        elif value is not None and ((place, name) in changes or name in {"category", "provider", "model", "unit"}):
            query[name] = value
    headers = {"Idempotency-Key": new_key()}
    return asker.ask(what.method, path, params=query, json=what.body if body is None else body, headers=headers)


def with_text(body: Any, place: tuple[str | int, ...], text: str) -> Any:
    """The body with a text in a place of it, whatever stood there."""
    changed = copy.deepcopy(body)
    at = changed
    for step, following in pairwise(place):
        if isinstance(at, dict) and not isinstance(at.get(step), dict | list):
            at[step] = [copy.deepcopy(AN_ITEM)] if following == 0 else {}
        at = at[step]
    at[place[-1]] = text
    return changed


class World(NamedTuple):
    """Two tenants: an administrator of ours, and what the others have."""

    url: str
    root: Asker
    theirs: dict[str, str]
    cursors: dict[str, str]


@pytest.fixture
def world(api: str) -> World:
    """The API over two tenants; the other one has some of everything, marked."""
    catalogues()
    a_customer("ana", credit="10")
    tenants.create_tenant(EVIL, MARK, clock.now())
    tenants.load_plans(EVIL, read_plans("default"), clock.now())
    create_customers([NewCustomer(EVIL, f"{MARK}-customer", "prepaid", "UTC", ("USD",))], clock.now())
    eve = as_(api, ADMIN, subject=f"{MARK}-eve", tenant_id=EVIL)
    customer = f"{MARK}-customer"
    grants = f"/v1/customers/{customer}/grants"
    for number in range(3):
        usage = {"customer_id": customer, "items": [AN_ITEM], "feature": MARK}
        assert eve.post("/v1/usage", usage, f"{MARK}-{number}").status == 201
        assert eve.post(grants, {"currency": "USD", "amount": "5", "reason": "promised"}, new_key()).status == 201
    hold = eve.post(f"/v1/customers/{customer}/holds", {"amount": "0.5", "currency": "USD"}, new_key()).body
    top_up = {"currency": "USD", "credit_amount": "1", "amount_minor": 100, "payment_currency": "BRL"}
    payment = eve.post(f"/v1/customers/{customer}/top-ups", top_up, new_key()).body
    theirs = {
        "customer_id": customer,
        "key": f"{MARK}-0",
        "hold_id": hold["hold_id"],
        "payment_id": payment["payment_id"],
    }
    own = read_prices("usd-per-unit")[0]._replace(
        scope=EVIL, model=MARK, effective_from=clock.now() + timedelta(hours=1)
    )
    load_prices([own], clock.now())
    lists = ("/v1/usage", f"/v1/customers/{customer}/ledger", "/v1/acts", "/v1/prices")
    cursors = {path.replace(customer, "{customer_id}"): eve.get(path, limit=1).body["next"] for path in lists}
    assert all(cursors.values())
    return World(api, as_(api, ADMIN), theirs, cursors)


#: Everything of the other tenant's, to be compared.
THEIRS = """
SELECT (SELECT jsonb_agg(w ORDER BY w.wallet_id) FROM wallets w WHERE tenant_id = 'evil'),
    (SELECT jsonb_agg(e ORDER BY e.key) FROM usage_events e WHERE tenant_id = 'evil'),
    (SELECT jsonb_agg(h ORDER BY h.hold_id) FROM credit_holds h WHERE tenant_id = 'evil'),
    (SELECT jsonb_agg(p ORDER BY p.payment_id) FROM payments p WHERE tenant_id = 'evil'),
    (SELECT jsonb_agg(a ORDER BY a.act_id) FROM admin_acts a WHERE tenant_id = 'evil')
"""


def test_the_document_is_walked_whole() -> None:
    """Else the walks below would prove little."""
    places = {(str(one), *place) for one in OPERATIONS for place in one.places}
    fields = {(str(one), place) for one in OPERATIONS for place in one.fields}

    assert len(OPERATIONS) >= 25
    assert len(places) > 60
    assert len(fields) > 40
    assert ("POST /v1/usage", ("items", 0, "model")) in fields
    assert ("POST /v1/usage", ("metadata", "any")) in fields


def test_sql_in_a_text_is_a_text(world: World) -> None:
    """In each place of the path, the query and the body: no fault of ours, nothing of others, and at once."""
    before = rows(THEIRS)
    for what in OPERATIONS:
        begun = time.monotonic()
        answers = []
        for hostile in HOSTILE:
            answers += [asked(world.root, what, {place: hostile}) for place in what.places]
            answers += [asked(world.root, what, {}, with_text(what.body, place, hostile)) for place in what.fields]

        for answered in answers:
            text = json.dumps(answered.body, default=str)
            assert answered.status < 500, (str(what), text)
            assert MARK not in text, (str(what), text)
            assert "syntax error" not in text, (str(what), text)
            if answered.status >= 400:
                told(answered)
        # One pg_sleep that ran would take as long as a statement may.
        assert time.monotonic() - begun < len(answers) + 5, str(what)

    assert rows(THEIRS) == before
    assert rows("SELECT to_regclass('wallets') IS NOT NULL, to_regclass('usage_events') IS NOT NULL") == [(True, True)]


NOBODYS = {
    "customer_id": "nobodys-customer",
    "key": "nobodys-0",
    "hold_id": "11111111-0f0f-5f6a-9a53-0a1c6d5b7e11",
    "payment_id": "22222222-0f0f-5f6a-9a53-0a1c6d5b7e11",
}


def test_another_tenants_things_are_told_from_nothing_by_nobody(world: World) -> None:
    """Whoever sends their ids, in whatever place, hears what they would of ids that nobody has; and moves nothing."""
    before = rows(THEIRS)
    asked_about = 0
    for what in OPERATIONS:
        theirs, nothings = said(world.root, what, world.theirs), said(world.root, what, NOBODYS)

        assert theirs == nothings, str(what)
        assert all(MARK not in text for _, text in theirs), str(what)
        asked_about += len(theirs)

    assert asked_about > 20
    assert rows(THEIRS) == before


def said(asker: Asker, what: Operation, ids: Mapping[str, str]) -> list[tuple[int, str]]:
    """What is answered to each of these ids, in each place of its name."""
    named = [place for place in what.places if place[1] in ids]
    answers = [asked(asker, what, {place: ids[place[1]]}) for place in named]
    fields = [place for place in what.fields if place and place[-1] in ids]
    answers += [asked(asker, what, {}, with_text(what.body, place, ids[str(place[-1])])) for place in fields]
    return [(one.status, in_common(json.dumps(one.body), ids)) for one in answers]


def in_common(text: str, ids: Mapping[str, str]) -> str:
    """What two such answers must have in common: all but when they were given, the ids and what is made anew."""
    for name, value in ids.items():
        text = text.replace(value, name)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z?|\b[0-9a-f]{16}\b|\bseti_\w+", "…", text)


def test_a_cursor_of_another_tenant_is_none(world: World) -> None:
    """Of whichever list, in whichever list."""
    lists = [one for one in OPERATIONS if ("query", "cursor") in one.places]
    answers = {
        (str(what), path): told(asked(world.root, what, {("query", "cursor"): cursor}))
        for what in lists
        for path, cursor in world.cursors.items()
    }

    assert len(lists) >= 4
    assert answers == dict.fromkeys(answers, (400, "cursor_malformed"))


def test_a_body_that_is_too_large_or_names_a_tenant_is_refused(world: World) -> None:
    for what in OPERATIONS:
        if what.body is None:
            continue
        large = asked(world.root, what, {}, what.body | {"padding": "x" * 300_000})
        named = asked(world.root, what, {}, what.body | {"tenant_id": EVIL})

        assert (told(large), told(named)) == ((413, "body_too_large"), (422, "invalid")), str(what)
