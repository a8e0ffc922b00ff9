"""What goes wrong on purpose, seen through Stripe's own library."""

import threading
from typing import Any

import pytest
import requests
import stripe

from sandbox.processes import await_condition
from sandbox.stripe_double.control import CONFIRM, CREATE, RETRIEVE, ControlError, DoubleControl

KEY = "sk_test_double"


def confirm(client: stripe.StripeClient, intent: str, key: str = "c", card: Any = "pm_card_visa") -> Any:
    return client.v1.payment_intents.confirm(intent, {"payment_method": card}, {"idempotency_key": key})


def captured_minor(control: DoubleControl) -> int:
    return sum(entry.captured_minor for entry in control.ledger().values())


def failed(client: stripe.StripeClient, intent: str, kind: type[stripe.StripeError]) -> stripe.StripeError:
    with pytest.raises(kind) as failure:
        confirm(client, intent)
    return failure.value


def test_a_connection_dropped_before_the_call_leaves_no_effect(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.add_fault("drop_before", "POST", CONFIRM)

    failed(client, intent, stripe.APIConnectionError)

    assert captured_minor(control) == 0
    assert confirm(client, intent).status == "succeeded"


def test_a_connection_dropped_after_the_effect_hides_it(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.add_fault("drop_after", "POST", CONFIRM)

    failed(client, intent, stripe.APIConnectionError)

    assert captured_minor(control) == 40000
    again = confirm(client, intent)
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert captured_minor(control) == 40000


def test_an_answer_may_come_later_than_the_caller_waits(
    client: stripe.StripeClient, intent: str, control: DoubleControl, url: str, http: requests.Session
) -> None:
    control.add_fault("delay_after", "POST", CONFIRM, seconds=2)
    transport = stripe.RequestsClient(timeout=0.2, session=http)
    impatient = stripe.StripeClient(KEY, http_client=transport, base_addresses={"api": url}, max_network_retries=0)

    failed(impatient, intent, stripe.APIConnectionError)

    assert captured_minor(control) == 40000
    assert confirm(client, intent).status == "succeeded"


def test_a_500_before_the_effect_is_kept_under_its_key(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.add_fault("error_before", "POST", CONFIRM)

    first, again = (failed(client, intent, stripe.APIError) for _ in range(2))

    assert (first.http_status, again.http_status) == (500, 500)
    assert first.json_body == again.json_body
    assert captured_minor(control) == 0
    assert confirm(client, intent, "another").status == "succeeded"


def test_a_500_from_in_front_of_stripe_is_not_kept(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.add_fault("error_before", "POST", CONFIRM, is_kept=False)

    failed(client, intent, stripe.APIError)

    assert captured_minor(control) == 0
    assert confirm(client, intent).status == "succeeded"


def test_a_500_after_the_effect_hides_it_for_as_long_as_the_key_lives(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.add_fault("error_after", "POST", CONFIRM)

    first, again = (failed(client, intent, stripe.APIError) for _ in range(2))

    assert (first.http_status, again.http_status) == (500, 500)
    assert client.v1.payment_intents.retrieve(intent).status == "succeeded"
    assert captured_minor(control) == 40000


def test_a_500_after_the_effect_from_in_front_of_stripe_leaves_the_true_answer_under_the_key(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.add_fault("error_after", "POST", CONFIRM, is_kept=False)

    failed(client, intent, stripe.APIError)

    assert confirm(client, intent).status == "succeeded"
    assert captured_minor(control) == 40000


@pytest.mark.parametrize(("kind", "status"), [("bad_gateway", 502), ("unavailable", 503)])
def test_a_gateway_that_fails_leaves_no_effect(
    client: stripe.StripeClient, intent: str, control: DoubleControl, kind: Any, status: int
) -> None:
    control.add_fault(kind, "POST", CONFIRM)

    failure = failed(client, intent, stripe.APIError)

    assert failure.http_status == status
    assert ("<html>" in str(failure.http_body)) == (kind == "bad_gateway")
    assert captured_minor(control) == 0
    assert confirm(client, intent).status == "succeeded"


@pytest.mark.parametrize(("should_retry", "said"), [(None, None), (True, "true"), (False, "false")])
def test_a_rate_limit_says_whether_to_try_again_if_told_to(
    client: stripe.StripeClient, intent: str, control: DoubleControl, should_retry: Any, said: str | None
) -> None:
    control.add_fault("rate_limited", "POST", CONFIRM, should_retry=should_retry)

    failure = failed(client, intent, stripe.RateLimitError)

    assert failure.http_status == 429
    assert dict(failure.headers or {}).get("stripe-should-retry") == said
    assert confirm(client, intent).status == "succeeded"


def test_a_conflict_may_be_had_without_a_second_request(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.add_fault("conflict", "POST", CONFIRM)

    failure = failed(client, intent, stripe.APIError)

    assert failure.http_status == 409
    assert failure.error is not None
    assert failure.error.code == "idempotency_key_in_use"
    assert confirm(client, intent).status == "succeeded"


def test_a_call_held_before_its_effect_is_a_conflict_for_the_next_one(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    held = control.add_fault("hold_before", "POST", CONFIRM)
    first = threading.Thread(target=confirm, args=(client, intent))
    first.start()
    control.wait_held(held)

    failure = failed(client, intent, stripe.APIError)
    taken_meanwhile = captured_minor(control)
    control.release(held)
    first.join()

    assert (failure.http_status, taken_meanwhile) == (409, 0)
    assert confirm(client, intent).status == "succeeded"
    assert captured_minor(control) == 40000


def test_a_refused_connection_is_refused_by_the_system_for_a_while(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    confirm(client, intent, card="pm_card_visa")
    control.refuse_connections(0.4)

    refusals: list[str] = []

    def is_answered() -> bool:
        try:
            return client.v1.payment_intents.retrieve(intent).status == "succeeded"
        except stripe.APIConnectionError as error:
            refusals.append(str(error))
            return False

    await_condition(lambda: not is_answered() and len(refusals) > 1, 30, "connections to be refused")

    assert "Connection refused" in refusals[-1]
    await_condition(is_answered, 30, "the double to serve again")
    assert captured_minor(control) == 40000


def test_a_fault_meets_the_nth_call_of_its_method_and_path(client: stripe.StripeClient, control: DoubleControl) -> None:
    asked: Any = {"amount": 500, "currency": "brl"}
    control.add_fault("unavailable", "POST", CREATE, nth=2, times=2)

    def status() -> int:
        try:
            made = client.v1.payment_intents.create(asked)
        except stripe.APIError as error:
            return error.http_status or 0
        assert client.v1.payment_intents.retrieve(made.id).id == made.id
        return 200

    assert [status() for _ in range(4)] == [200, 503, 503, 200]
    [state] = control.faults()
    assert (state.seen, state.hits) == (4, 2)


def test_a_fault_may_meet_calls_by_chance_which_the_seed_decides(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    def met() -> list[bool]:
        fault = control.add_fault("unavailable", "GET", RETRIEVE, probability=0.3, seed=5, times=0)
        outcomes = []
        for _ in range(20):
            try:
                outcomes.append(client.v1.payment_intents.retrieve(intent).id != intent)
            except stripe.APIError:
                outcomes.append(True)
        assert [one.hits for one in control.faults() if one.id == fault] == [sum(outcomes)]
        control.clear_faults()
        return outcomes

    first = met()

    assert 0 < sum(first) < 20
    assert met() == first


def test_cleared_faults_meet_nothing_more(client: stripe.StripeClient, intent: str, control: DoubleControl) -> None:
    control.add_fault("unavailable", times=0)

    control.clear_faults()

    assert control.faults() == []
    assert confirm(client, intent).status == "succeeded"


def test_a_wish_that_makes_no_sense_is_refused_in_words(
    control: DoubleControl, http: requests.Session, url: str
) -> None:
    answer = http.post(f"{url}/_control/add_fault", json={"kind": "explode", "colour": "red"})

    assert answer.status_code == 400
    assert "kind" in answer.json()["error"]
    assert "colour" in answer.json()["error"]
    with pytest.raises(ControlError, match="No such dispute"):
        control.close_dispute("du_nothing", "won")
