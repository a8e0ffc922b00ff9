"""The HTTP face: Stripe's paths, and what a test may ask about the double and wish of it."""

import asyncio
from collections.abc import Sequence
from functools import partial

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.routing import Route as HttpRoute

from sandbox.stripe_double.calls import Call
from sandbox.stripe_double.errors import Answer, ApiError, invalid_request
from sandbox.stripe_double.execution import BeforeExecution, Exchange, Executor, form_of
from sandbox.stripe_double.faults import Dropped, Faults, Interrupted, after_commit
from sandbox.stripe_double.forms import checked, integer
from sandbox.stripe_double.ledger import captured
from sandbox.stripe_double.routes import ROUTES, Route
from sandbox.stripe_double.state import Store
from sandbox.stripe_double.traffic import LoggedCall, Traffic
from sandbox.stripe_double.version import STRIPE_VERSION
from sandbox.stripe_double.webhooks import Webhooks

API_VERSION = STRIPE_VERSION


async def _at_once(_call: Call) -> None:
    """Execute without delay."""


class StripeDouble:
    """The double: its state, and one coroutine that answers a request."""

    def __init__(self, before_execution: BeforeExecution = _at_once) -> None:
        self.store = Store()
        self.faults = Faults()
        self.traffic = Traffic()
        self.webhooks = Webhooks(self.store)
        self._executor = Executor(self.store, self.faults, self.webhooks, before_execution)

    def app(self, more: Sequence[BaseRoute] = ()) -> Starlette:
        """The application, with more routes if there are any, such as those of the control."""
        routes = [HttpRoute(route.template, partial(self._respond, route), methods=[route.method]) for route in ROUTES]
        looks = [
            HttpRoute("/_double/captured", self._captured),
            HttpRoute("/_double/requests", self._counted),
            HttpRoute("/_double/clock", self._clock, methods=["GET", "POST"]),
        ]
        handlers = {404: _unknown_url, 405: _unknown_url, ApiError: _refused}
        return Starlette(routes=[*routes, *looks, *more], exception_handlers=handlers)

    async def _respond(self, route: Route, request: HttpRequest) -> Response:
        exchange, traffic = Exchange(route, request), self.traffic
        path, key = request.url.path, exchange.idempotency_key
        logged = traffic.arrived(route.method, route.template, path, key, self.store.clock.now())
        answer = await self._answered(exchange)
        _note(logged, exchange, answer)
        traffic.answered(logged)
        if answer is None:
            request.state.drop()
            await asyncio.sleep(0)  # until the server knows that nobody listens
        response = _response(answer, exchange.request_id)
        response.background = BackgroundTask(self.webhooks.after_answer, exchange.webhooks)
        return response

    async def _answered(self, exchange: Exchange) -> Answer | None:
        """What goes back over the wire; None if the connection is to end without an answer."""
        try:
            answer = await self._executor.answer(exchange)
            await self.webhooks.before_answer(exchange.webhooks)
            if exchange.armed:
                await after_commit(exchange.armed)
        except ApiError as error:
            return error.answer()
        except Interrupted as interrupted:
            return interrupted.answer
        except Dropped:
            return None
        return answer

    async def _captured(self, _request: HttpRequest) -> Response:
        return JSONResponse(captured(self.store))

    async def _counted(self, _request: HttpRequest) -> Response:
        return JSONResponse(self.traffic.counted())

    async def _clock(self, request: HttpRequest) -> Response:
        clock = self.store.clock
        if request.method == "POST":
            sent = checked(await form_of(request), {"offset_seconds": integer}, ("offset_seconds",))
            clock.offset_seconds = sent["offset_seconds"]
        return JSONResponse({"now": clock.now(), "offset_seconds": clock.offset_seconds})


def _note(logged: LoggedCall, exchange: Exchange, answer: Answer | None) -> None:
    logged.fault = exchange.armed.fault.kind if exchange.armed else None
    if answer is not None:
        logged.status, logged.is_replayed = answer.status, "Idempotent-Replayed" in answer.headers


def _response(answer: Answer | None, request_id: str) -> Response:
    if answer is None:
        return Response()
    if isinstance(answer.body, str):
        return HTMLResponse(answer.body, answer.status)
    headers = {"Request-Id": request_id, "Stripe-Version": STRIPE_VERSION, **answer.headers}
    return JSONResponse(answer.body, answer.status, headers)


async def _refused(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.answer().body, error.status)


async def _unknown_url(request: HttpRequest, _error: Exception) -> Response:
    message = f"Unrecognized request URL ({request.method}: {request.url.path})."
    return JSONResponse(invalid_request(message, status=404).answer().body, 404)
