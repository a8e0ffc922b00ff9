"""What is answered directly is answered as FastAPI answers it, to whoever asks, and in whose scope it would."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Query, Response
from fastapi.routing import APIRoute

from api.access import CustomerId, Limits, Seen, SeenAmongAll, Viewer
from api.app import create_app
from api.asked import AskedRoute
from api.routes import router
from api.v1.balances import AffordabilityQuestion
from config import clock
from config.settings import settings
from db.session import ask, in_transaction
from services.books import tenants
from tests.api.asking import ADMIN, VIEW, WRITE, Answered, Asker, as_, claims, token, told
from tests.api.serving import served_api
from tests.api.test_scope import OTHER, OURS, forgetful
from tests.factories import TENANT, a_customer, catalogues

PATHS = ("/v1/customers/{customer_id:path}/wallet", "/v1/customers/{customer_id:path}/affordability")
AFFORDABILITY, WALLET = "/v1/customers/ana/affordability", "/v1/customers/ana/wallet"
ITEM = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "1000"}


@pytest.fixture
def asked(api: str) -> str:
    catalogues()
    a_customer("ana", credit="10")
    a_customer("bob", credit="5")
    tenants.create_tenant(OTHER, "Other", clock.now())
    return api


def said(answered: Answered) -> tuple[int, str, dict[str, str]]:
    """An answer without the moments in it."""
    body = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", json.dumps(answered.body))
    return answered.status, body, {name: text for name, text in answered.headers.items() if name != "date"}


def as_fastapi_says(patch: pytest.MonkeyPatch, asker: Asker, method: str, path: str, **more: Any) -> Answered:
    with patch.context() as patched:
        patched.setattr(AskedRoute, "handle", APIRoute.handle)
        return asker.ask(method, path, **more)


CALLERS: Mapping[str, tuple[str, ...] | Mapping[str, Any]] = {
    "an administrator": (ADMIN,),
    "who may view": (VIEW,),
    "who may record alone": (WRITE,),
    "the member": {"subject": "ana"},
    "who is the customer": {"subject": "user-17", "customer_id": "ana"},
    "another member": {"subject": "bob"},
    "another tenant's": {"capabilities": [ADMIN], "tenant_id": OTHER},
}


def caller(url: str, name: str) -> Asker:
    match CALLERS[name]:
        case tuple() as capabilities:
            return as_(url, *capabilities)
        case said:
            more = dict(said)
            return as_(url, *more.pop("capabilities", []), **more)


@pytest.mark.parametrize("name", CALLERS)
def test_whoever_asks_is_told_the_same(asked: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = caller(asked, name)
    for method, path, body in (
        ("POST", AFFORDABILITY, {"cost": "0.25", "currency": "USD"}),
        ("POST", AFFORDABILITY, {"items": [ITEM], "buffer": 1.5, "user_id": "user-17", "feature": "chat"}),
        ("POST", AFFORDABILITY, {"cost": 1, "items": [ITEM]}),
        ("POST", "/v1/customers/nobody/affordability", {"cost": "1"}),
        ("GET", WALLET, None),
        ("GET", f"{WALLET}?currency=USD", None),
        ("GET", f"{WALLET}?currency=EUR&more=1&currency=USD", None),
        ("GET", f"{WALLET}?currency=EUR", None),
        ("GET", "/v1/customers/nobody/wallet", None),
    ):
        found = asker.ask(method, path, json=body)
        assert said(found) == said(as_fastapi_says(monkeypatch, asker, method, path, json=body)), (method, path, body)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer nonsense", "Basic {token}", "bearer {token}", "BEARER  {token}", "{token}"],
)
def test_whoever_says_badly_who_they_are_is_told_the_same(
    asked: str, authorization: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = Asker(asked, None)
    headers = {}
    if authorization is not None:
        headers["Authorization"] = authorization.format(token=token(claims("root", ADMIN)))

    for method, path in (("POST", AFFORDABILITY), ("GET", WALLET)):
        more: dict[str, Any] = {"json": {"cost": "1"}, "headers": headers}
        assert said(nobody.ask(method, path, **more)) == said(
            as_fastapi_says(monkeypatch, nobody, method, path, **more)
        )


MALFORMED: list[tuple[str | None, str, int]] = [
    ("application/json", "", 422),
    ("application/json", "{", 422),
    ("application/json", "[]", 422),
    ("application/json", "null", 422),
    ("application/json", '"cost"', 422),
    ("application/json", '{"cost": NaN}', 400),
    ("application/json", '{"cost": 1e9999999999999999999}', 400),
    ("application/json", '{"cost": "1", "tenant_id": "other"}', 422),
    ("application/json", '{"cost": 0.0000000000001}', 422),
    ("application/json", '{"cost": true}', 422),
    ("application/json", '{"items": []}', 422),
    ("application/json", "[" * 100_000, 400),
    ("application/json", '{"cost": "\ud800"}', 422),
    ("text/plain", '{"cost": "1"}', 422),
    (None, '{"cost": "1"}', 422),
    ("application/x-www-form-urlencoded", "cost=1", 422),
    # And well-formed, in other words.
    ("Application/JSON; charset=utf-8", '{"cost": "1"}', 200),
    ("application/problem+json", '{"cost": "1"}', 200),
    ("application/json", '{"cost": 1.000000000001, "cost": 2}', 200),
]


@pytest.mark.parametrize(("kind", "body", "status"), MALFORMED)
def test_what_is_malformed_is_told_as_everywhere(
    asked: str, kind: str | None, body: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = as_(asked, ADMIN)
    more: dict[str, Any] = {
        "data": body.encode("utf-8", "surrogatepass"),
        "headers": {"Content-Type": kind} if kind else {},
    }

    found = root.ask("POST", AFFORDABILITY, **more)

    if status != 200:
        assert told(found)[0] in {status, 400}
    assert said(found) == said(as_fastapi_says(monkeypatch, root, "POST", AFFORDABILITY, **more))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/customers/%00/wallet"),
        ("GET", f"/v1/customers/{'a' * 1000}/wallet"),
        ("GET", "/v1/customers/a/b/wallet"),
        ("GET", f"{WALLET}?currency="),
        ("GET", f"{WALLET}?currency=usd"),
        ("GET", f"{WALLET}?currency=%ff"),
        ("DELETE", WALLET),
        ("POST", WALLET),
        ("GET", AFFORDABILITY),
    ],
)
def test_other_paths_and_queries_are_told_the_same(
    asked: str, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = as_(asked, ADMIN)

    found = root.ask(method, path)

    assert found.status >= 400
    assert said(found) == said(as_fastapi_says(monkeypatch, root, method, path))


def test_fastapi_is_asked_for_what_is_wrong_alone(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who asks counts against their pace once, whichever way it goes."""
    resolved: list[str] = []
    counted: list[tuple[str, str]] = []
    handle = APIRoute.handle

    async def noted(self: APIRoute, scope: Any, receive: Any, send: Any) -> None:
        resolved.append(scope["method"])
        await handle(self, scope, receive, send)

    monkeypatch.setattr(APIRoute, "handle", noted)
    monkeypatch.setattr(Limits, "take", lambda _, who: counted.append(who))
    root = as_(asked, ADMIN)

    right = root.post(AFFORDABILITY, {"cost": "1"}), root.get(WALLET), root.get(WALLET, currency="USD")
    assert ([one.status for one in right], resolved) == ([200] * 3, [])
    wrong = root.post(AFFORDABILITY, {"cost": "one"}), root.get(WALLET, currency="usd")
    assert ([one.status for one in wrong], resolved) == ([422] * 2, ["POST", "GET"])
    assert counted == [(TENANT, "root")] * 5


@pytest.fixture
def careless(billing_database: str, jwt_keys: object) -> Iterator[str]:
    """The API with asked routes that read everything there is, each in one sight, both ways to the database."""
    assert billing_database
    settings.cache_clear()
    catalogues()
    a_customer("ana", credit="10")
    a_customer("bob", credit="5")
    routes = router("careless", route_class=AskedRoute)

    def seen(seen: Seen) -> Response:
        return _told([in_transaction(forgetful), ask(forgetful), seen])

    def seen_among_all(seen: SeenAmongAll) -> Response:
        return _told([in_transaction(forgetful), ask(forgetful), seen])

    routes.add_api_route("/careless/own/{customer_id}", seen)
    routes.add_api_route("/careless/all/{customer_id}", seen_among_all)
    app: FastAPI = create_app()
    app.include_router(routes)
    with served_api(app) as url:
        yield url


def _told(found: object) -> Response:
    return Response(json.dumps(found), media_type="application/json")


def test_what_forgets_its_tenant_is_shown_what_it_would_be(careless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, member, other = as_(careless, VIEW), as_(careless, subject="ana"), as_(careless, VIEW, tenant_id=OTHER)
    expected = {
        (root, "own"): (TENANT, None, OURS),
        (root, "all"): (TENANT, None, OURS),
        (member, "own"): (TENANT, "ana", OURS[:1]),
        (member, "all"): (TENANT, None, OURS),
        (other, "own"): (OTHER, None, None),
        (other, "all"): (OTHER, None, None),
    }

    for (asker, way), whose in expected.items():
        path = f"/v1/careless/{way}/ana"
        by_transaction, by_question, seen = asker.get(path).body
        assert (by_transaction["tenant"], by_transaction["customer"], by_transaction["customers"]) == whose
        assert by_question == by_transaction
        assert by_transaction["role"] == "centavo_api"
        assert seen == [whose[0], "ana"]
        assert as_fastapi_says(monkeypatch, asker, "GET", path).body == [by_transaction, by_question, seen]
    assert told(as_(careless, subject="bob").get("/v1/careless/all/ana")) == (403, "forbidden")


def test_what_would_not_be_answered_alike_can_not_be_asked_so() -> None:
    """It is refused where the route is made, and not found out by who asks."""

    def no_sight(question: AffordabilityQuestion) -> Any: ...
    def a_capability(seen: Seen, caller: Viewer) -> Any: ...
    def unknown_way(seen: Annotated[Any, Depends(lambda: None)]) -> Any: ...
    def two_bodies(seen: Seen, one: AffordabilityQuestion, other: AffordabilityQuestion) -> Any: ...
    def more_of_the_path(seen: Seen, hold_id: CustomerId) -> Any: ...
    def a_plain_type(seen: Seen, limit: int = 5) -> Any: ...
    def a_query_that_must_be_there(seen: Seen, currency: Annotated[str, Query()]) -> Any: ...

    refused = (
        no_sight,
        a_capability,
        unknown_way,
        two_bodies,
        more_of_the_path,
        a_plain_type,
        a_query_that_must_be_there,
    )
    for endpoint in refused:
        with pytest.raises(TypeError, match="can't be asked directly"):
            AskedRoute("/v1/customers/{customer_id}", endpoint)


def test_the_questions_are_asked_so() -> None:
    from api.v1 import balances

    found = {route.path for route in balances.routes.routes if isinstance(route, AskedRoute)}

    assert found == {*PATHS}
