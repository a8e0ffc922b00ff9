"""The control over HTTP: what a test wishes of the double, and what it wants to know.

`POST /_control/<wish>` with a JSON object grants a wish (see `wishes`), `GET /_control/<look>` shows something.
All of it is meant for `control.DoubleControl`, and plain enough for curl. A wish that can't be granted is a 400
whose `error` says why.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.stripe_double import settling, wishes
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.disputes import close_dispute, open_dispute, review_dispute
from sandbox.stripe_double.errors import ApiError, Json
from sandbox.stripe_double.ledger import PAYMENT_ID, ledger
from sandbox.stripe_double.scripts import UnknownCard, decline_of
from sandbox.stripe_double.traffic import Traffic
from sandbox.stripe_double.webhook_endpoints import add_endpoint, remove_endpoint
from sandbox.stripe_double.wishes import Wish

W = TypeVar("W", bound=Wish)
Refuse = Callable[[float], Awaitable[None]]


def control_routes(double: StripeDouble, refuse: Refuse) -> list[BaseRoute]:
    """All routes of the control. `refuse` makes the server refuse connections for so many seconds."""
    return _Control(double, refuse).routes()


class _Control:
    """Grants wishes to whoever asks."""

    def __init__(self, double: StripeDouble, refuse: Refuse) -> None:
        self._double = double
        self._store = double.store
        self._refuse = refuse
        self._endpoint_id: str | None = None

    def routes(self) -> list[BaseRoute]:
        return [
            self._wish("set_clock", wishes.SetClock, self._set_clock),
            self._wish("advance", wishes.AdvanceClock, self._advance),
            self._wish("set_offset", wishes.SetOffset, self._set_offset),
            self._wish("script_card", wishes.ScriptCard, self._script_card),
            self._wish("add_fault", wishes.Fault, lambda wish: {"id": self._double.faults.add(wish)}),
            self._wish("clear_faults", wishes.Nothing, lambda _: self._double.faults.clear()),
            self._wish("release", wishes.ReleaseHeld, lambda wish: self._double.faults.release(wish.fault_id)),
            Route("/_control/refuse_connections", self._refuse_connections, methods=["POST"]),
            self._wish("set_webhooks", wishes.SetWebhooks, self._set_webhooks),
            self._wish("set_delivery", wishes.Delivery, self._double.webhooks.use),
            self._wish("deliver_all", wishes.Nothing, lambda _: {"sent": self._double.webhooks.deliver_all()}),
            self._wish("open_dispute", wishes.OpenDispute, self._open_dispute),
            self._wish("review_dispute", wishes.ReviewDispute, self._review_dispute),
            self._wish("close_dispute", wishes.CloseDispute, self._close_dispute),
            self._wish("settle_processing", wishes.SettleProcessing, self._settle_processing),
            self._wish("authenticate", wishes.Authenticate, self._authenticate),
            self._wish("update_card", wishes.UpdateCard, self._update_card),
            self._wish("forget_calls", wishes.Nothing, lambda _: self._forget_calls()),
            self._look("clock", lambda _: self._clock()),
            self._look("faults", lambda _: self._double.faults.shown()),
            self._look("webhooks", lambda _: self._double.webhooks.shown()),
            self._look("ledger", lambda asked: ledger(self._store, asked.get("key", PAYMENT_ID))),
            self._look("calls", self._calls),
            self._look("rates", lambda _: self._double.traffic.rates()),
        ]

    def _wish(self, name: str, kind: type[W], grant: Callable[[W], Any]) -> BaseRoute:
        async def respond(request: Request) -> Response:
            try:
                granted = grant(kind.model_validate_json(await request.body() or b"{}"))
            except (ApiError, UnknownCard, ValidationError) as error:
                return JSONResponse({"error": str(error)}, 400)
            # What a wish made happen is told to the endpoints as anything else is.
            jobs = self._double.webhooks.plan(self._store.take_emitted())
            await self._double.webhooks.before_answer(jobs)
            return JSONResponse(granted, background=BackgroundTask(self._double.webhooks.after_answer, jobs))

        return Route(f"/_control/{name}", respond, methods=["POST"])

    def _look(self, name: str, look: Callable[[dict[str, str]], Any]) -> BaseRoute:
        async def respond(request: Request) -> Response:
            return JSONResponse(look(dict(request.query_params)))

        return Route(f"/_control/{name}", respond, methods=["GET"])

    async def _refuse_connections(self, request: Request) -> Response:
        try:
            wish = wishes.RefuseConnections.model_validate_json(await request.body())
        except ValidationError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(None, background=BackgroundTask(self._refuse, wish.seconds))

    def _set_clock(self, wish: wishes.SetClock) -> Json:
        self._store.clock.offset_seconds += wish.now - self._store.clock.now()
        return self._clock()

    def _advance(self, wish: wishes.AdvanceClock) -> Json:
        self._store.clock.offset_seconds += wish.seconds
        return self._clock()

    def _set_offset(self, wish: wishes.SetOffset) -> Json:
        self._store.clock.offset_seconds = wish.seconds
        return self._clock()

    def _clock(self) -> Json:
        clock = self._store.clock
        return {"now": clock.now(), "offset_seconds": clock.offset_seconds}

    def _script_card(self, wish: wishes.ScriptCard) -> Json:
        card = self._store.cards.script(wish.card, wish.steps, wish.then, self._store.payment_methods)
        return {"card": card}

    def _set_webhooks(self, wish: wishes.SetWebhooks) -> Json:
        endpoint = add_endpoint(self._store, wish.url, wish.secret, wish.enabled_events)
        if self._endpoint_id in self._store.webhook_endpoints:
            remove_endpoint(self._store, self._endpoint_id)
        self._endpoint_id = endpoint.id
        self._double.webhooks.use(wish.delivery)
        return {"id": endpoint.id}

    def _open_dispute(self, wish: wishes.OpenDispute) -> Json:
        intent = self._store.payment_intents.get(wish.charge_or_intent)
        charge = self._store.charge(str(intent.latest_charge) if intent else wish.charge_or_intent)
        return {"id": open_dispute(self._store, charge, wish.amount_minor, wish.reason).id}

    def _review_dispute(self, wish: wishes.ReviewDispute) -> None:
        review_dispute(self._store, self._store.dispute(wish.dispute))

    def _close_dispute(self, wish: wishes.CloseDispute) -> None:
        close_dispute(self._store, self._store.dispute(wish.dispute), wish.outcome)

    def _settle_processing(self, wish: wishes.SettleProcessing) -> None:
        settling.settle_processing(self._store, wish.intent, decline_of(wish.decline) if wish.decline else None)

    def _authenticate(self, wish: wishes.Authenticate) -> None:
        settling.authenticate(self._store, wish.intent, is_successful=wish.is_successful)

    def _update_card(self, wish: wishes.UpdateCard) -> None:
        settling.update_card(self._store, wish.payment_method, wish.exp_month, wish.exp_year)

    def _forget_calls(self) -> None:
        self._double.traffic = Traffic()

    def _calls(self, asked: dict[str, str]) -> Any:
        return self._double.traffic.calls(asked.get("path"), int(asked.get("after", 0)))
