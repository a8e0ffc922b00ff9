"""What a tenant sets for itself, over HTTP and on the command line."""

from decimal import Decimal
from typing import Any

import pytest

from db.scope import as_everybody
from services.desk.wallets import can_afford
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, told
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one
from tests.services.test_tenant_settings import NOW

PATH = "/v1/settings"
NONE_OWN = dict.fromkeys(
    (
        "free_tier_credits",
        "affordability_buffer",
        "low_balance",
        "audit_alert_percent",
        "audit_alert_value_percent",
        "low_requests_per_minute",
    )
)
INSTALLATION = {
    "free_tier_credits": "10000",
    "affordability_buffer": "1.2",
    "low_balance": "1, CREDIT=1000",
    "audit_alert_percent": "0",
    "audit_alert_value_percent": "0",
    "low_requests_per_minute": None,
}


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer."""
    catalogues()
    a_customer("ana", credit="15")
    return as_(api, ADMIN)


def test_settings_are_shown_set_and_given_back(root: Asker) -> None:
    shown = root.get(PATH)
    changed = root.ask("PATCH", PATH, json={"affordability_buffer": "2", "low_balance": "7, EUR=3"})
    back = root.ask("PATCH", PATH, json={"affordability_buffer": None})
    asked = root.post("/v1/customers/ana/affordability", {"cost": "10"})

    assert shown.body == {"own": NONE_OWN, "in_force": INSTALLATION}
    own = {"affordability_buffer": "2", "low_balance": "7, EUR=3"}
    assert changed.body == {"own": NONE_OWN | own, "in_force": INSTALLATION | own}
    assert back.body["own"] == NONE_OWN | {"low_balance": "7, EUR=3"}
    assert back.body == root.get(PATH).body
    assert asked.body["required"] == "12"
    assert one("SELECT count(*), min(subject) FROM admin_acts WHERE action = 'settings.change'") == (2, "root")


def test_only_administrators_may(api: str, root: Asker) -> None:
    assert root.get(PATH).status == 200
    for asker in (as_(api, VIEW), as_(api, WRITE), as_(api)):
        assert told(asker.get(PATH)) == (403, "forbidden")
        assert told(asker.ask("PATCH", PATH, json={"affordability_buffer": "2"})) == (403, "forbidden")
    with as_everybody():
        assert can_afford(TENANT, "ana", NOW, cost=Decimal(1)).required == Decimal("1.2")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"affordability_buffer": "0.5"}, (422, "invalid")),
        ({"free_tier_credits": "-1"}, (422, "invalid")),
        ({"low_balance": "5; 6"}, (422, "invalid")),
        ({"low_balance": "5, 6"}, (400, "rejected")),
        ({"low_requests_per_minute": 0}, (422, "invalid")),
        ({"free_tier_credits": "9999999999999"}, (400, "rejected")),
        ({"colour": "red"}, (422, "invalid")),
    ],
)
def test_what_can_not_be_set_is_refused(root: Asker, body: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.ask("PATCH", PATH, json=body)) == expected
    assert root.get(PATH).body["own"] == NONE_OWN
