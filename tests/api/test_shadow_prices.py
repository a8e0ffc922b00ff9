"""Price lists beside the live one, read over HTTP."""

from datetime import timedelta
from decimal import Decimal

import pytest

from config import clock
from services.metering.shadowing import rate_some, start
from services.metering.usage import record_usage
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, told
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.services.test_parked import a_price


@pytest.fixture
def viewer(api: str) -> Asker:
    """Somebody of a tenant in which two customers have used something since a list was started."""
    catalogues()
    start(TENANT, "next", [a_price("gpt-4", unit_price=Decimal("0.00006"))], clock.now() - timedelta(minutes=5))
    for customer_id in ("ana", "bob"):
        a_customer(customer_id, credit="10")
        event = an_event(customer_id, [tokens(10_000)], key=customer_id, occurred_at=clock.now())
        record_usage(an_envelope(event), clock.now())
    rate_some(clock.now())
    return as_(api, VIEW)


def test_a_list_is_compared_with_the_live_one(viewer: Asker) -> None:
    listed = viewer.get("/v1/shadow-prices").body
    first = viewer.get("/v1/shadow-prices/next", limit=1).body
    second = viewer.get("/v1/shadow-prices/next", limit=1, cursor=first["next"]).body
    bobs = viewer.get("/v1/shadow-prices/next", customer_id="bob").body

    (one,) = listed["lists"]
    assert (one["name"], one["prices"], one["stopped_at"]) == ("next", 1, None)
    assert first["shadow"] == one
    compared = {"currency": "USD", "unrated": 0, "live": "0.3", "shadow": "0.6", "difference": "0.3", "events": 1}
    day = {"day": clock.now().date().isoformat()}
    assert [*first["days"], *second["days"]] == [compared | day | {"customer_id": who} for who in ("ana", "bob")]
    total = compared | {"events": 2, "live": "0.6", "shadow": "1.2", "difference": "0.6"}
    assert first["totals"] == second["totals"] == [total]
    assert (second["next"], bobs["days"]) == (None, second["days"])


def test_what_is_not_there_is_not_found(api: str, viewer: Asker) -> None:
    assert told(viewer.get("/v1/shadow-prices/another")) == (404, "unknown_shadow_list")
    assert told(viewer.get("/v1/shadow-prices/next", cursor="nonsense")) == (400, "cursor_malformed")
    assert told(as_(api, ADMIN, tenant_id="beta").get("/v1/shadow-prices/next")) == (404, "unknown_shadow_list")
    assert told(as_(api, ADMIN, tenant_id="beta").get("/v1/shadow-prices")) == (404, "unknown_tenant")


def test_only_who_sees_the_tenant_may(api: str, viewer: Asker) -> None:
    assert viewer.get("/v1/shadow-prices").status == 200
    for asker in (as_(api, WRITE), as_(api, subject="ana", customer_id="ana")):
        for path in ("/v1/shadow-prices", "/v1/shadow-prices/next"):
            assert told(asker.get(path)) == (403, "forbidden")
