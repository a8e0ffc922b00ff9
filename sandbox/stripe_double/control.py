"""`DoubleControl(base_url)`: a test's hand on a running double, in this process or another.

control = DoubleControl(base_url)
control.set_webhooks("http://127.0.0.1:8000/webhooks/stripe", "whsec_test", Delivery(copies=2))
control.script_card("pm_card_twice", [decline("insufficient_funds")] * 2)
control.add_fault("drop_after", "POST", CONFIRM)
…
control.wait_delivered()
assert all(entry.captured_minor == 40000 for entry in control.ledger().values())
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from sandbox.stripe_double import wishes
from sandbox.stripe_double.traffic import LoggedCall
from sandbox.stripe_double.wishes import Delivery, Fault, FaultKind, Step, Wish

CREATE = "/v1/payment_intents"
CONFIRM = "/v1/payment_intents/{id}/confirm"
RETRIEVE = "/v1/payment_intents/{id}"
REFUND = "/v1/refunds"

WAIT_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02
ANSWER_SECONDS_MAX = 30.0

SUCCEED = Step(do="succeed")
PROCESSING = Step(do="processing")
AUTHENTICATE = Step(do="authenticate")


class ControlError(Exception):
    """The double could not grant a wish; it says why."""


def decline(decline_code: str = "generic_decline", **facts: Any) -> Step:
    """A step that declines; facts are `code`, `message`, `advice_code`, `network_advice_code`,
    `network_decline_code` and `outcome_reason`.
    """
    return Step(do="decline", decline_code=decline_code, **facts)


@dataclass(frozen=True)
class LedgerEntry:
    """What became of one payment, in minor units. Withdrawn is what a dispute that is not won has taken back."""

    currency: str
    charges: int
    captured_minor: int
    refunded_minor: int
    withdrawn_minor: int
    succeeded_intents: list[str]


@dataclass(frozen=True)
class Rates:
    """How many calls there were, and the most within any one second, in all and by `METHOD /template`."""

    calls: int
    per_second_max: int
    by_route: dict[str, int]


@dataclass(frozen=True)
class FaultState:
    """How a fault fares: calls that it matched, that it met, and that it holds now."""

    id: int
    seen: int
    hits: int
    held: int
    fault: Fault


@dataclass(frozen=True)
class WebhookState:
    """Deliveries in flight (delayed, gathered and backing off ones too); events that some endpoint still
    lacks; requests sent and acknowledged so far.
    """

    in_flight: int
    undelivered: int
    attempts: int
    acknowledged: int


class DoubleControl:
    """Wishes and looks; each is one HTTP call. Raises ControlError where the double refuses."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._opener = build_opener(ProxyHandler({}))

    def now(self) -> int:
        """The double's clock, in seconds since 1970."""
        return int(self._look("clock")["now"])

    def set_clock(self, now: int) -> int:
        """Let it be this time; it goes on from there. Gives the new time."""
        return int(self._wish("set_clock", wishes.SetClock(now=now))["now"])

    def advance(self, seconds: int) -> int:
        """Move the clock on, or back; gives the new time."""
        return int(self._wish("advance", wishes.AdvanceClock(seconds=seconds))["now"])

    def offset(self) -> int:
        """How many seconds the double's clock is ahead of the machine's."""
        return int(self._look("clock")["offset_seconds"])

    def set_offset(self, seconds: int) -> None:
        """Let it be so many seconds ahead of the machine's."""
        self._wish("set_offset", wishes.SetOffset(seconds=seconds))

    def script_card(self, card: str, steps: Sequence[Step], then: Step | None = None) -> str:
        """Let a card follow steps, one at each charge and customer, then `then`, or its own ways; gives its number.

        The card is a number, a `pm_card_…` token (either may be new) or the id of a payment method.
        """
        wish = wishes.ScriptCard(card=card, steps=list(steps), then=then)
        return str(self._wish("script_card", wish)["card"])

    def add_fault(self, kind: FaultKind, method: str = "*", path: str = "*", **more: Any) -> int:
        """Arm a fault (see `wishes.Fault` for all of it); gives its id."""
        return int(
            self._wish("add_fault", Fault.model_validate({"kind": kind, "method": method, "path": path, **more}))["id"]
        )

    def clear_faults(self) -> None:
        """Disarm all faults, and let go what they hold."""
        self._wish("clear_faults")

    def faults(self) -> list[FaultState]:
        return [FaultState(**{**one, "fault": Fault.model_validate(one["fault"])}) for one in self._look("faults")]

    def wait_held(self, fault_id: int, calls: int = 1, timeout_seconds: float = WAIT_SECONDS_MAX) -> None:
        """Wait until a `hold_…` fault holds so many calls. Raises TimeoutError."""

        def is_held() -> bool:
            return any(one.id == fault_id and one.held >= calls for one in self.faults())

        _await(is_held, timeout_seconds, lambda: f"fault {fault_id} to hold {calls} call(s)")

    def release(self, fault_id: int | None = None) -> None:
        """Let go the calls that a fault holds, or those of all faults."""
        self._wish("release", wishes.ReleaseHeld(fault_id=fault_id))

    def refuse_connections(self, seconds: float) -> None:
        """End all connections, and refuse new ones (this control's too) for a while."""
        self._wish("refuse_connections", wishes.RefuseConnections(seconds=seconds))

    def is_answered(self) -> bool:
        """Whether the double answers at this moment."""
        try:
            self._look("rates")
        except OSError:
            return False
        return True

    def set_webhooks(
        self,
        url: str,
        secret: str,
        delivery: Delivery = Delivery(),  # noqa: B008 - it is frozen
        enabled_events: Sequence[str] = ("*",),
    ) -> str:
        """Deliver what happens from now on to a loopback address, no longer to an earlier one; gives the endpoint."""
        wish = wishes.SetWebhooks(url=url, secret=secret, delivery=delivery, enabled_events=list(enabled_events))
        return str(self._wish("set_webhooks", wish)["id"])

    def set_delivery(self, delivery: Delivery) -> None:
        """Deliver what happens from now on in another way."""
        self._wish("set_delivery", delivery)

    def deliver_all(self) -> int:
        """Send now, rightly signed, what no endpoint has acknowledged yet; gives how many are on their way."""
        return int(self._wish("deliver_all")["sent"])

    def webhooks(self) -> WebhookState:
        return WebhookState(**self._look("webhooks"))

    def wait_delivered(self, timeout_seconds: float = WAIT_SECONDS_MAX) -> None:
        """Wait until every endpoint has acknowledged every event.

        Raises ControlError when nothing is on its way any more and some event still lacks its acknowledgement,
        TimeoutError when it takes too long.
        """

        def is_delivered() -> bool:
            state = self.webhooks()
            if state.undelivered and not state.in_flight:
                raise ControlError(f"{state.undelivered} events were given up or never sent; deliver_all() sends them")
            return not state.in_flight and not state.undelivered

        _await(is_delivered, timeout_seconds, lambda: f"all webhooks to be delivered: {self.webhooks()}")

    def wait_sent(self, timeout_seconds: float = WAIT_SECONDS_MAX) -> None:
        """Wait until nothing is on its way any more, acknowledged or given up. Raises TimeoutError."""
        _await(lambda: not self.webhooks().in_flight, timeout_seconds, lambda: f"webhooks to end: {self.webhooks()}")

    def open_dispute(self, charge_or_intent: str, amount_minor: int | None = None, reason: str = "fraudulent") -> str:
        """Let the bank take back what is left of a charge, or a part; gives the dispute's id."""
        wish = wishes.OpenDispute(charge_or_intent=charge_or_intent, amount_minor=amount_minor, reason=reason)
        return str(self._wish("open_dispute", wish)["id"])

    def review_dispute(self, dispute: str) -> None:
        """Let the bank look at it: `under_review`."""
        self._wish("review_dispute", wishes.ReviewDispute(dispute=dispute))

    def close_dispute(self, dispute: str, outcome: Literal["won", "lost"]) -> None:
        self._wish("close_dispute", wishes.CloseDispute(dispute=dispute, outcome=outcome))

    def settle_processing(self, intent: str, decline: Step | None = None) -> None:
        """Let a `processing` intent succeed, or fail with this decline."""
        self._wish("settle_processing", wishes.SettleProcessing(intent=intent, decline=decline))

    def authenticate(self, intent: str, *, is_successful: bool = True) -> None:
        """Let the customer do what a PaymentIntent or SetupIntent that `requires_action` asks for."""
        self._wish("authenticate", wishes.Authenticate(intent=intent, is_successful=is_successful))

    def update_card(self, payment_method: str, exp_month: int, exp_year: int) -> None:
        """Let the bank issue a card anew: `payment_method.automatically_updated`."""
        wish = wishes.UpdateCard(payment_method=payment_method, exp_month=exp_month, exp_year=exp_year)
        self._wish("update_card", wish)

    def ledger(self, key: str = "payment_id") -> dict[str, LedgerEntry]:
        """Every payment for which a charge was tried, by this key of the intents' metadata."""
        return {name: LedgerEntry(**entry) for name, entry in self._look("ledger", key=key).items()}

    def calls(self, path: str | None = None, after: int = 0) -> list[LoggedCall]:
        """The last 50,000 calls at most, oldest first: of one path template, after a call's number."""
        asked = {"after": after} if path is None else {"after": after, "path": path}
        return [LoggedCall(**call) for call in self._look("calls", **asked)]

    def rates(self) -> Rates:
        return Rates(**self._look("rates"))

    def forget_calls(self) -> None:
        """Begin log, counts and rates anew, so that what follows is measured alone."""
        self._wish("forget_calls")

    def _wish(self, name: str, wish: Wish | None = None) -> Any:
        body = (wish or wishes.Nothing()).model_dump_json().encode()
        return self._called(Request(f"{self._base_url}/_control/{name}", body))  # noqa: S310 - loopback

    def _look(self, name: str, **asked: Any) -> Any:
        return self._called(Request(f"{self._base_url}/_control/{name}?{urlencode(asked)}"))  # noqa: S310 - loopback

    def _called(self, request: Request) -> Any:
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS_MAX) as answer:
                return json.load(answer)
        except HTTPError as error:
            with error:
                raise ControlError(error.read().decode(errors="replace")) from error


def _await(is_so: Callable[[], bool], timeout_seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_seconds:g} s for {what()}, in vain")
        time.sleep(POLL_SECONDS)
