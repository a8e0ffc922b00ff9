"""The payment gateway on Stripe's own library. The only module that imports `stripe`."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import requests
import stripe
from urllib3.exceptions import MaxRetryError, NewConnectionError

from payments.gateway import (
    EVENT_TYPES,
    CardSnapshot,
    DisputeSnapshot,
    EventSnapshot,
    GatewayKeyReused,
    GatewayMisconfigured,
    GatewayRejected,
    GatewayUnavailable,
    IntentRequest,
    IntentSnapshot,
    Parameters,
    RefundSnapshot,
    SetupIntentSnapshot,
    confirm_parameters,
    create_parameters,
    refund_parameters,
    setup_parameters,
)
from payments.snapshots import (
    card_of,
    decline_of,
    dispute_of,
    event_of,
    intent_of,
    reason_of,
    refund_of,
    setup_intent_of,
)

#: Seconds to connect and to wait for an answer. The library's own default is 80, longer than a sweep.
TIMEOUT_SECONDS = (3.05, 30.0)
#: Tries of one call with the same key, on top of the first; the schedule of declines is another matter.
NETWORK_RETRIES_MAX = 2
PAGE_SIZE = 100
WITH_CHARGE: Mapping[str, list[str]] = {"expand": ["latest_charge"]}


class StripeGateway:
    """`payments.gateway.PaymentGateway`, over HTTP.

    The client is built at the first call of each process, so that a gateway made before a fork shares no
    connection with its children. With `api_base` another server is called, directly: never through a
    proxy from the environment.
    """

    def __init__(
        self,
        secret_key: str,
        api_base: str | None = None,
        *,
        network_retries_max: int = NETWORK_RETRIES_MAX,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> None:
        self._secret_key = secret_key
        self._api_base = api_base
        self._network_retries_max = network_retries_max
        self._timeout_seconds = timeout_seconds
        self._built: tuple[int, _Transport, stripe.StripeClient] | None = None

    def create_intent(
        self, request: IntentRequest, idempotency_key: str, *, stored: Parameters | None = None
    ) -> IntentSnapshot:
        parameters = stored or create_parameters(request)
        with self._calling() as client:
            intent = client.v1.payment_intents.create(_untyped(parameters), _keyed(idempotency_key))
        return intent_of(intent.to_dict())

    def confirm_intent(
        self,
        stripe_payment_intent_id: str,
        payment_method: str,
        idempotency_key: str,
        *,
        stored: Parameters | None = None,
    ) -> IntentSnapshot:
        parameters = stored or confirm_parameters(payment_method)
        with self._calling() as client:
            try:
                intent = client.v1.payment_intents.confirm(
                    stripe_payment_intent_id, _untyped(parameters), _keyed(idempotency_key)
                )
            except stripe.CardError as error:
                return self._declined(stripe_payment_intent_id, error)
            except stripe.InvalidRequestError as error:
                return self._adopted(stripe_payment_intent_id, error)
        return intent_of(intent.to_dict())

    def retrieve_intent(self, stripe_payment_intent_id: str) -> IntentSnapshot:
        with self._calling() as client:
            intent = client.v1.payment_intents.retrieve(stripe_payment_intent_id, _untyped(WITH_CHARGE))
        return intent_of(intent.to_dict())

    def cancel_intent(self, stripe_payment_intent_id: str, idempotency_key: str) -> IntentSnapshot:
        with self._calling() as client:
            try:
                intent = client.v1.payment_intents.cancel(
                    stripe_payment_intent_id, _untyped(WITH_CHARGE), _keyed(idempotency_key)
                )
            except stripe.InvalidRequestError as error:
                return self._adopted(stripe_payment_intent_id, error)
        return intent_of(intent.to_dict())

    def find_intents(self, stripe_customer_id: str, created_since: datetime) -> list[IntentSnapshot]:
        # Listed, not searched: Stripe's search lags behind, and what it misses would be collected twice.
        wanted = {
            "customer": stripe_customer_id,
            "created": {"gte": int(created_since.timestamp())},
            "limit": PAGE_SIZE,
            "expand": ["data.latest_charge"],
        }
        with self._calling() as client:
            page = client.v1.payment_intents.list(_untyped(wanted))
            return [intent_of(intent.to_dict()) for intent in page.auto_paging_iter()]

    def create_customer(
        self, name: str, metadata: dict[str, str], idempotency_key: str, *, email: str | None = None
    ) -> str:
        parameters: Parameters = {"name": name, "metadata": metadata}
        if email is not None:
            parameters["email"] = email
        with self._calling() as client:
            return client.v1.customers.create(_untyped(parameters), _keyed(idempotency_key)).id

    def find_customer(self, metadata: tuple[str, str]) -> str | None:
        name, value = metadata
        wanted = {"query": f"metadata['{name}']:'{value}'", "limit": 1}
        with self._calling() as client:
            found = client.v1.customers.search(_untyped(wanted)).data
        return found[0].id if found else None

    def attach_payment_method(
        self, stripe_customer_id: str, payment_method: str, idempotency_key: str | None = None
    ) -> str:
        parameters = {"customer": stripe_customer_id}
        with self._calling() as client:
            attached = client.v1.payment_methods.attach(payment_method, _untyped(parameters), _keyed(idempotency_key))
            return attached.id

    def detach_payment_method(self, payment_method_id: str) -> CardSnapshot:
        with self._calling() as client:
            card = card_of(client.v1.payment_methods.retrieve(payment_method_id).to_dict())
            if card.stripe_customer_id is None:
                return card
            return card_of(client.v1.payment_methods.detach(payment_method_id).to_dict())

    def retrieve_payment_method(self, payment_method_id: str) -> CardSnapshot:
        with self._calling() as client:
            return card_of(client.v1.payment_methods.retrieve(payment_method_id).to_dict())

    def create_setup_intent(
        self, stripe_customer_id: str, metadata: dict[str, str], idempotency_key: str
    ) -> SetupIntentSnapshot:
        parameters = setup_parameters(stripe_customer_id, metadata)
        with self._calling() as client:
            setup = client.v1.setup_intents.create(_untyped(parameters), _keyed(idempotency_key))
            return setup_intent_of(setup.to_dict())

    def retrieve_setup_intent(self, setup_intent_id: str) -> SetupIntentSnapshot:
        with self._calling() as client:
            return setup_intent_of(client.v1.setup_intents.retrieve(setup_intent_id).to_dict())

    def create_refund(
        self, stripe_payment_intent_id: str, amount_minor: int, metadata: dict[str, str], idempotency_key: str
    ) -> RefundSnapshot:
        parameters = refund_parameters(stripe_payment_intent_id, amount_minor, metadata)
        with self._calling() as client:
            return refund_of(client.v1.refunds.create(_untyped(parameters), _keyed(idempotency_key)).to_dict())

    def find_refunds(self, stripe_payment_intent_id: str) -> list[RefundSnapshot]:
        wanted = {"payment_intent": stripe_payment_intent_id, "limit": PAGE_SIZE}
        with self._calling() as client:
            page = client.v1.refunds.list(_untyped(wanted))
            return [refund_of(refund.to_dict()) for refund in page.auto_paging_iter()]

    def retrieve_dispute(self, stripe_dispute_id: str) -> DisputeSnapshot:
        with self._calling() as client:
            return dispute_of(client.v1.disputes.retrieve(stripe_dispute_id).to_dict())

    def find_disputes(self, stripe_payment_intent_id: str) -> list[DisputeSnapshot]:
        wanted = {"payment_intent": stripe_payment_intent_id, "limit": PAGE_SIZE}
        with self._calling() as client:
            page = client.v1.disputes.list(_untyped(wanted))
            return [dispute_of(dispute.to_dict()) for dispute in page.auto_paging_iter()]

    def missed_events(self, since: datetime, *, is_everything: bool = False) -> Iterator[EventSnapshot]:
        wanted: Parameters = {
            "created": {"gte": int(since.timestamp())},
            "types": list(EVENT_TYPES),
            "limit": PAGE_SIZE,
        }
        if not is_everything:
            wanted["delivery_success"] = False
        with self._calling() as client:
            for event in client.v1.events.list(_untyped(wanted)).auto_paging_iter():
                yield event_of(event.to_dict())

    @contextmanager
    def _calling(self) -> Iterator[stripe.StripeClient]:
        """The client, for one call; what goes wrong leaves as one of our errors."""
        transport, client = self._client()
        transport.forget()
        try:
            yield client
        except stripe.StripeError as error:
            raise our_error(error, may_have_executed=transport.may_have_executed) from error

    def _client(self) -> "tuple[_Transport, stripe.StripeClient]":
        if self._built is None or self._built[0] != os.getpid():
            self._built = (os.getpid(), *self._build())
        return self._built[1:]

    def _build(self) -> "tuple[_Transport, stripe.StripeClient]":
        stripe.enable_telemetry = False
        session = requests.Session()
        session.trust_env = self._api_base is None
        transport = _Transport(timeout=self._timeout_seconds, session=session)
        client = stripe.StripeClient(
            self._secret_key,
            max_network_retries=self._network_retries_max,
            http_client=transport,
            base_addresses={"api": self._api_base} if self._api_base else None,
        )
        return transport, client

    def _declined(self, intent_id: str, error: stripe.CardError) -> IntentSnapshot:
        told: dict[str, Any] = error.error.to_dict() if error.error else {}
        if not told.get("payment_intent"):
            return self.retrieve_intent(intent_id)
        declined = decline_of(told, self._outcome_reason(told.get("charge")))
        return replace(intent_of(told["payment_intent"]), decline=declined)

    def _outcome_reason(self, charge_id: str | None) -> str | None:
        """Why Stripe let the charge fail: told on the charge alone, where a generic decline may hide worse."""
        if charge_id is None:
            return None
        # The decline is certain without it, and must be recorded even if Stripe is away by now.
        with suppress(stripe.StripeError):
            charge = self._client()[1].v1.charges.retrieve(charge_id)
            return reason_of(charge.to_dict())
        return None

    def _adopted(self, intent_id: str, error: stripe.InvalidRequestError) -> IntentSnapshot:
        """The intent is past this step already: whatever state it is in is the answer."""
        if error.error is None or error.error.code != "payment_intent_unexpected_state":
            raise error
        return self.retrieve_intent(intent_id)


class _Transport(stripe.RequestsClient):
    """The library's HTTP client, remembering whether any try of a call may have been executed.

    The library tries again by itself and reports the last try alone: a refused connection after a
    time-out says nothing about the request that timed out.
    """

    def __init__(self, timeout: tuple[float, float], session: requests.Session) -> None:
        super().__init__(timeout=timeout, session=session)
        self._call = threading.local()

    @property
    def may_have_executed(self) -> bool:
        return bool(getattr(self._call, "may_have_executed", False))

    def forget(self) -> None:
        """Begin a new call."""
        self._call.may_have_executed = False

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[Any, int, Mapping[str, str]]:
        try:
            body, status, answered = super().request(method, url, headers, post_data)
        except stripe.APIConnectionError as error:
            self._call.may_have_executed |= not _never_sent(error)
            raise
        self._call.may_have_executed |= status not in range(400, 500) or status == 409
        return body, status, answered


def _never_sent(error: stripe.APIConnectionError) -> bool:
    """Whether no connection came about, so that no byte of the request left."""
    cause = error.__cause__
    if isinstance(cause, requests.ConnectTimeout):
        return True
    wrapped = cause.args[0] if isinstance(cause, requests.ConnectionError) and cause.args else None
    return isinstance(wrapped, MaxRetryError) and isinstance(wrapped.reason, NewConnectionError)


def our_error(error: stripe.StripeError, *, may_have_executed: bool) -> Exception:
    """The one place where the library's errors become ours."""
    # `error.code` is None on several classes, and `error.error` on an answer that isn't JSON.
    code = error.error.code if error.error else None
    param = error.error.param if error.error else None
    said = error.user_message or type(error).__name__
    match error:
        case stripe.APIConnectionError():
            reason = "connection"
        case stripe.IdempotencyError():
            return GatewayKeyReused(said, stripe_code=code, param=param)
        case stripe.CardError() | stripe.InvalidRequestError():
            return GatewayRejected(said, stripe_code=code, param=param)
        case stripe.AuthenticationError() | stripe.PermissionError():
            return GatewayMisconfigured(f"Stripe refuses our key; check the secret key in the settings: {said}")
        case stripe.RateLimitError():
            reason = "in_progress" if code == "lock_timeout" else "rate_limited"
        case _:
            reason = "in_progress" if error.http_status == 409 else "server_error"
    return GatewayUnavailable(
        f"Stripe gave no outcome: {said}",
        reason=reason,
        may_have_executed=may_have_executed,
        is_replay=_is_replay(error),
    )


def _is_replay(error: stripe.StripeError) -> bool:
    """Whether this is the kept answer of an earlier call; docs.stripe.com/api/idempotent_requests: 500s are kept."""
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return headers.get("idempotent-replayed") == "true"


def _keyed(idempotency_key: str | None) -> stripe.RequestOptions:
    # In `options`, never among the parameters: there it would become a field, and the header random.
    return {"idempotency_key": idempotency_key}


def _untyped(parameters: Mapping[str, Any]) -> Any:
    """Parameters come back from the database as plain JSON; the double and Stripe check their names."""
    return dict(parameters)
