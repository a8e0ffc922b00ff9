"""What holds collecting back: the switch, the caps, the stop-loss, the pace; and what lets it go on."""

import time
from datetime import UTC, datetime

import pytest

from billing.errors import PaymentNotFound, Rejected
from billing.payments import PaymentState
from config.settings import settings
from services.collecting import guards
from services.collecting.collect import claim_due
from tests.factories import TENANT
from tests.looking import rows
from tests.services.collecting import FEE, at_stripe, attempts, captured, due_again, owing, payment, taken

pytestmark = pytest.mark.usefixtures("billing_database")


def told(kind: str) -> list[str]:
    return [detail for (detail,) in rows("SELECT detail FROM alerts WHERE kind = %s", kind)]


def setting(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"CENTAVO_{name}", str(value))
    settings.cache_clear()


def test_while_it_is_paused_nothing_is_handed_out_or_begun() -> None:
    (due,) = owing()
    now = datetime.now(UTC)
    guards.pause("the bank holiday", now)

    assert claim_due(now) == []
    assert taken(due) is PaymentState.DUE
    assert at_stripe("/v1/payment_intents")["data"] == []
    assert guards.switch().reason == "the bank holiday"

    guards.resume()
    assert claim_due(now) == [(TENANT, due)]
    assert taken(due) is PaymentState.SUCCEEDED


def test_a_pause_in_the_middle_sends_nothing_and_the_payment_goes_on_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (due,) = owing()
    now = datetime.now(UTC)

    def pausing(*_: object) -> None:
        guards.pause("now", now)

    monkeypatch.setattr(guards, "await_slot", pausing)

    assert taken(due, now) is PaymentState.DUE
    assert captured() == {}
    monkeypatch.undo()
    guards.resume()
    assert taken(due, now) is PaymentState.SUCCEEDED
    assert captured() == {due: (FEE, 1)}


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        ({"CUSTOMER_DAY_PAYMENTS_MAX": 1}, "2 payments of customer ana in one day; the cap is 1"),
        ({"CUSTOMER_DAY_MINOR_MAX": FEE}, "20000 minor units of customer ana in one day; the cap is 10000"),
        ({"TENANT_HOUR_PAYMENTS_MAX": 1}, "2 payments of the tenant in one hour; the cap is 1"),
        ({"TENANT_HOUR_MINOR_MAX": FEE}, "20000 minor units of the tenant in one hour; the cap is 10000"),
    ],
)
def test_above_a_cap_a_payment_awaits_a_person(
    monkeypatch: pytest.MonkeyPatch, caps: dict[str, int], words: str
) -> None:
    setting(monkeypatch, **caps)
    first, second = owing(tiers=2)

    assert [taken(first), taken(second)] == [PaymentState.SUCCEEDED, PaymentState.AWAITING_APPROVAL]

    assert captured() == {first: (FEE, 1)}
    assert payment(second) == ("awaiting_approval", 0, None)
    assert told("cap_reached") == [f"payment {second} awaits approval: {words}"]
    assert taken(second) is PaymentState.AWAITING_APPROVAL

    for _ in range(2):
        guards.approve(TENANT, second, datetime.now(UTC))
    assert taken(second) is PaymentState.SUCCEEDED
    assert captured() == {first: (FEE, 1), second: (FEE, 1)}
    guards.approve(TENANT, second, datetime.now(UTC))  # whoever heard no answer asks again
    assert payment(second) == ("succeeded", 1, None)


def test_only_what_awaits_approval_is_approved() -> None:
    (due,) = owing()

    with pytest.raises(Rejected, match="is due; only what awaits approval"):
        guards.approve(TENANT, due, datetime.now(UTC))
    with pytest.raises(PaymentNotFound):
        guards.approve("nobody", due, datetime.now(UTC))


def test_tries_of_one_payment_count_once_against_the_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    setting(monkeypatch, CUSTOMER_DAY_PAYMENTS_MAX=1)
    (due,) = owing("pm_card_chargeCustomerFail")

    taken(due)

    assert taken(due, due_again(due)) is PaymentState.RETRY_SCHEDULED
    assert [attempt for attempt, _, _ in attempts(due)] == [1, 2]


def test_with_too_many_open_tiers_a_customer_can_afford_no_more() -> None:
    """The plan bears five; the alert is said once, and counted."""
    owing(None, tiers=4)
    assert guards.is_affordable(TENANT, "ana")

    owing(None, tiers=5, customer="bea")

    assert not guards.is_affordable(TENANT, "bea")
    assert told("open_tiers") == ["5 tier payments of customer bea are unpaid; the plan bears 5"]


def test_the_pace_is_shared_and_never_faster_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    setting(monkeypatch, PAYMENTS_PER_SECOND=50)
    owing()
    began = time.monotonic()

    for _ in range(26):
        guards.await_slot()

    assert time.monotonic() - began >= 25 / 50
