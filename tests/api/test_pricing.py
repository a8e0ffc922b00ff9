"""A tenant's own prices over HTTP: dated, and never overwritten."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from config import clock
from db.scope import as_tenant
from services.books.catalogue_files import price_of
from services.desk import prices
from tests.api.asking import ADMIN, VIEW, Asker, as_, new_key, told
from tests.factories import TENANT, catalogues
from tests.looking import one, rows

PRODUCT = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token"}
PRICE = PRODUCT | {"currency": "USD", "unit_price": "0.000000000000000001"}


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with everybody's prices."""
    catalogues()
    return as_(api, ADMIN)


def at(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def looked_up(asker: Asker, moment: datetime) -> dict[str, Any]:
    found: dict[str, Any] = asker.get("/v1/prices/lookup", **PRODUCT, at=at(moment)).body["price"]
    return found


def test_a_price_ends_its_predecessor_at_its_start_and_overwrites_nothing(root: Asker) -> None:
    """To the 18th digit; what held before is found for what occurred before."""
    starts = clock.now() + timedelta(hours=1)
    before = looked_up(root, clock.now())

    made = root.post("/v1/prices", PRICE | {"effective_from": at(starts)}, "k1")

    assert made.status == 201
    assert (made.body["price"]["unit_price"], made.body["price"]["is_own"]) == ("0.000000000000000001", True)
    assert looked_up(root, starts) == made.body["price"]
    assert looked_up(root, starts - timedelta(microseconds=1)) == before
    assert rows("SELECT action, target FROM admin_acts") == [("price.create", "llm_prompt/openai/gpt-4/token")]


def test_left_out_it_begins_a_little_later_and_the_same_key_means_the_same_start(root: Asker) -> None:
    asked_at = datetime.now(UTC)
    first, again = (root.post("/v1/prices", PRICE, "k1") for _ in range(2))

    assert first.body == again.body
    starts = datetime.fromisoformat(first.body["price"]["effective_from"])
    assert timedelta(minutes=1) < starts - asked_at < timedelta(minutes=10)
    assert one("SELECT count(*) FROM prices WHERE scope = %s", TENANT) == (1,)


def test_a_mistake_is_corrected_by_a_further_revision(root: Asker) -> None:
    starts = {"effective_from": at(clock.now() + timedelta(hours=1))}
    root.post("/v1/prices", PRICE | starts, "k1")

    refused = root.post("/v1/prices", PRICE | starts | {"unit_price": "0.5"}, "k2")
    corrected = root.post("/v1/prices", PRICE | starts | {"unit_price": "0.5", "is_correction": True}, "k3")

    assert told(refused) == (409, "already_exists")
    assert (corrected.body["price"]["unit_price"], corrected.body["price"]["revision"]) == ("0.5", 1)
    assert looked_up(root, clock.now() + timedelta(hours=2)) == corrected.body["price"]
    assert one("SELECT count(*) FROM prices WHERE scope = %s", TENANT) == (2,)


def test_an_own_price_ends_and_everybodys_holds_again(root: Asker) -> None:
    everybodys = looked_up(root, clock.now())
    starts, ends = (clock.now() + timedelta(hours=number) for number in (1, 2))
    own = root.post("/v1/prices", PRICE | {"effective_from": at(starts)}, "k1").body["price"]
    path = f"/v1/prices/{own['price_id']}/end"

    ended, again = (root.post(path, {"effective_from": at(ends)}, "k2") for _ in range(2))

    assert (ended.status, ended.body["price"]["is_ended"]) == (201, True)
    assert again.body == ended.body
    assert looked_up(root, clock.now() + timedelta(minutes=90)) == own
    assert looked_up(root, clock.now() + timedelta(hours=3)) == everybodys
    assert told(root.post(f"/v1/prices/{everybodys['price_id']}/end", {}, "k3")) == (404, "unknown_price")


def test_a_ladder_and_a_default_of_a_provider(root: Asker) -> None:
    rungs = [{"up_to": "10", "unit_price": "2"}, {"unit_price": "1"}]
    ladder = PRODUCT | {"model": "new", "currency": "USD", "ladder": rungs, "is_provider_default": True, "per": "1000"}

    made = root.post("/v1/prices", ladder | {"effective_from": at(clock.now() - timedelta(days=1))}, "k1").body["price"]

    assert made["ladder"] == [{"up_to": "10", "unit_price": "2"}, {"up_to": None, "unit_price": "1"}]
    assert (made["per"], made["is_provider_default"]) == ("1000", True)
    unknown = root.get("/v1/prices/lookup", **PRODUCT | {"model": "never heard of"}, at=at(clock.now())).body
    assert unknown["serves_as_default"]
    assert unknown["price"] == made


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"effective_from": at(clock.now())}, (400, "rejected")),
        ({"unit_price": None}, (400, "catalogue_malformed")),
        ({"ladder": [{"up_to": "1", "unit_price": "1"}], "unit_price": None}, (400, "catalogue_malformed")),
        ({"unit_price": "-1"}, (422, "invalid")),
        ({"unit_price": "0.0000000000000000001"}, (422, "invalid")),
        ({"unit_price": "NaN"}, (422, "invalid")),
        ({"per": "0"}, (400, "catalogue_malformed")),
        ({"effective_from": "0001-01-01T00:00:00+14:00"}, (422, "invalid")),
        ({"scope": ""}, (422, "invalid")),
    ],
)
def test_what_is_no_price(root: Asker, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.post("/v1/prices", PRICE | changes, new_key())) == expected
    assert one("SELECT count(*) FROM prices WHERE scope = %s", TENANT) == (0,)


def test_another_tenants_price_is_none(api: str, root: Asker) -> None:
    own = root.post("/v1/prices", PRICE, "k1").body["price"]
    one("INSERT INTO tenants (tenant_id, name, created_at) VALUES ('other', 'Other', now()) RETURNING 1")
    stranger = as_(api, ADMIN, tenant_id="other")

    assert told(stranger.post(f"/v1/prices/{own['price_id']}/end", {}, "k1")) == (404, "unknown_price")
    assert told(as_(api, VIEW).post("/v1/prices", PRICE, "k2")) == (403, "forbidden")


@pytest.mark.usefixtures("billing_database")
def test_prices_are_added_in_a_tenants_scope() -> None:
    catalogues()
    with as_tenant(TENANT):
        wanted = price_of({**PRICE, "unit_price": Decimal("0.1")}, TENANT, clock.now() + timedelta(hours=1))
        own = prices.add(wanted, clock.now())
        ended = prices.end(TENANT, own.price_id, clock.now() + timedelta(hours=2), clock.now())

    assert (own.unit_price, ended.is_ended) == (Decimal("0.1"), True)
