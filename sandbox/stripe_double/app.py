"""The HTTP face: the order of checks that every request passes, and what a test may ask about the double.

401 → validation 400 → idempotency (409 in flight, 400 for other parameters, replay) → object lock 429 →
execute. A limit on the rate belongs between the first two. Executing and keeping the answer is one step: no
`await` stands between them, so no other request sees the effect without its answer.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from sandbox.stripe_double.calls import Call
from sandbox.stripe_double.cards import BY_METHOD_TOKEN
from sandbox.stripe_double.errors import Answer, ApiError, invalid_request, object_locked, unauthorized
from sandbox.stripe_double.forms import Form, checked, decode, integer
from sandbox.stripe_double.idempotency import IdempotencyKeys, Request
from sandbox.stripe_double.routes import ROUTES, Route
from sandbox.stripe_double.state import Store, new_id

#: The one version of Stripe's API that the double speaks: that of the installed library.
API_VERSION = "2026-10-28.endive"

#: Awaited after every check, just before a POST executes: a fault waits, drops or raises here.
BeforeExecution = Callable[[Call], Awaitable[None]]


async def _at_once(_call: Call) -> None:
    """Execute without delay."""


class StripeDouble:
    """The double: its state, and one coroutine that answers a request."""

    def __init__(self, before_execution: BeforeExecution = _at_once) -> None:
        self.store = Store()
        self.before_execution = before_execution
        self._keys: dict[str, IdempotencyKeys] = {}
        self._locked: set[str] = set()
        self._requests = {"by_route": Counter[str](), "by_status": Counter[str](), "replayed": Counter[str]()}

    def app(self) -> Starlette:
        routes = [HttpRoute(route.template, partial(self._respond, route), methods=[route.method]) for route in ROUTES]
        looks = [
            HttpRoute("/_double/captured", self._captured),
            HttpRoute("/_double/requests", self._counted),
            HttpRoute("/_double/clock", self._clock, methods=["GET", "POST"]),
        ]
        handlers = {404: _unknown_url, 405: _unknown_url, ApiError: _refused}
        return Starlette(routes=[*routes, *looks], exception_handlers=handlers)

    async def _respond(self, route: Route, request: HttpRequest) -> Response:
        request_id = new_id("req")
        try:
            answer = await self._answer(route, request, request_id)
        except ApiError as error:
            answer = error.answer()
        self._count(route, answer)
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION, **answer.headers}
        return JSONResponse(answer.body, answer.status, headers)

    async def _answer(self, route: Route, request: HttpRequest, request_id: str) -> Answer:
        secret_key = _authenticated(request)
        _refuse_other_version(request)
        form = await _form_of(request)
        call = self._call(route, request, form)
        key = request.headers.get("Idempotency-Key")
        if route.method == "GET":
            return _executed(route, call)
        if key is None:
            return await self._execute_locked(route, call)
        bound = Request(route.method, request.url.path, form, request_id)
        return await self._execute_once(route, call, self._keys.setdefault(secret_key, IdempotencyKeys()), key, bound)

    def _call(self, route: Route, request: HttpRequest, form: Form) -> Call:
        params = checked(form, route.shape, route.required)
        expand = params.pop("expand", [])
        path_id = request.path_params.get("id", "")
        return Call(self.store, request.url.path, path_id, params, expand)

    async def _execute_once(self, route: Route, call: Call, keys: IdempotencyKeys, key: str, bound: Request) -> Answer:
        kept = keys.claim(key, bound, self.store.clock.now())
        if kept is not None:
            return kept
        try:
            answer = await self._execute_locked(route, call)
            keys.keep(key, answer)
        finally:
            keys.release(key)
        return answer

    async def _execute_locked(self, route: Route, call: Call) -> Answer:
        with self._lock(call.path_id):
            await self.before_execution(call)
            return _executed(route, call)

    @contextmanager
    def _lock(self, object_id: str) -> Iterator[None]:
        # A test token is no object: each use of it makes a new one.
        held = {object_id} - {"", *BY_METHOD_TOKEN}
        if held & self._locked:
            raise object_locked(object_id)
        self._locked |= held
        try:
            yield
        finally:
            self._locked -= held

    def _count(self, route: Route, answer: Answer) -> None:
        self._requests["by_route"][route.name] += 1
        self._requests["by_status"][str(answer.status)] += 1
        if "Idempotent-Replayed" in answer.headers:
            self._requests["replayed"][route.name] += 1

    async def _captured(self, _request: HttpRequest) -> Response:
        return JSONResponse(self.store.captured())

    async def _counted(self, _request: HttpRequest) -> Response:
        return JSONResponse({"total": self._requests["by_route"].total(), **self._requests})

    async def _clock(self, request: HttpRequest) -> Response:
        clock = self.store.clock
        if request.method == "POST":
            sent = checked(await _form_of(request), {"offset_seconds": integer}, ("offset_seconds",))
            clock.offset_seconds = sent["offset_seconds"]
        return JSONResponse({"now": clock.now(), "offset_seconds": clock.offset_seconds})


def _executed(route: Route, call: Call) -> Answer:
    try:
        return Answer(200, route.handler(call))
    except ApiError as error:
        return error.answer()


def _authenticated(request: HttpRequest) -> str:
    """The secret key. A live one is refused: whoever sends it believes to talk to Stripe."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not key:
        raise unauthorized("No API key given: send it as 'Authorization: Bearer sk_test_…'.")
    if not key.startswith("sk_test_"):
        raise unauthorized("Invalid API key: this is a double of Stripe, it takes keys that start with sk_test_.")
    return key


def _refuse_other_version(request: HttpRequest) -> None:
    version = request.headers.get("Stripe-Version")
    if version != API_VERSION:
        raise invalid_request(f"Invalid Stripe API version: {version}. The double speaks {API_VERSION} alone.")


async def _form_of(request: HttpRequest) -> Form:
    return decode((await request.body()).decode(errors="replace") if request.method == "POST" else request.url.query)


async def _refused(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.answer().body, error.status)


async def _unknown_url(request: HttpRequest, _error: Exception) -> Response:
    message = f"Unrecognized request URL ({request.method}: {request.url.path})."
    return JSONResponse(invalid_request(message, status=404).answer().body, 404)
