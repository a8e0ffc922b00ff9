"""The order of checks that every request passes, and its execution.

401 → 429 and other faults at the front → validation 400 → idempotency (409 in flight, 400 for other parameters,
replay) → object lock 429 → execute. Executing and keeping the answer is one step: no `await` stands between
them, so no other request sees the effect without its answer.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import Request as HttpRequest

from sandbox.stripe_double.calls import Call
from sandbox.stripe_double.errors import Answer, ApiError, invalid_request, object_locked, unauthorized
from sandbox.stripe_double.faults import ArmedFault, Faults, at_the_front, server_error
from sandbox.stripe_double.forms import Form, checked, decode
from sandbox.stripe_double.idempotency import IdempotencyKeys, Request
from sandbox.stripe_double.routes import Route
from sandbox.stripe_double.state import Store, new_id
from sandbox.stripe_double.version import STRIPE_VERSION
from sandbox.stripe_double.webhooks import Job, Webhooks

#: Awaited after every check, just before a POST executes: a fault waits, drops or raises here.
BeforeExecution = Callable[[Call], Awaitable[None]]


@dataclass
class Exchange:
    """One request on its way: the fault that meets it, and the webhooks that it causes."""

    route: Route
    http: HttpRequest
    request_id: str = field(default_factory=lambda: new_id("req"))
    armed: ArmedFault | None = None
    webhooks: list[Job] = field(default_factory=list)

    @property
    def idempotency_key(self) -> str | None:
        return self.http.headers.get("Idempotency-Key")

    def is_met_by(self, kind: str) -> bool:
        return self.armed is not None and self.armed.fault.kind == kind


class Executor:
    """Answers requests from the store; keeps idempotency keys and locks."""

    def __init__(self, store: Store, faults: Faults, webhooks: Webhooks, before_execution: BeforeExecution) -> None:
        self._store = store
        self._faults = faults
        self._webhooks = webhooks
        self._before_execution = before_execution
        self._keys: dict[str, IdempotencyKeys] = {}
        self._locked: set[str] = set()

    async def answer(self, exchange: Exchange) -> Answer:
        """What Stripe answers; raises ApiError for what it refuses, Dropped or Interrupted for a fault."""
        http, route, key = exchange.http, exchange.route, exchange.idempotency_key
        secret_key = _authenticated(http)
        exchange.armed = self._faults.drawn(route.method, route.template)
        if exchange.armed:
            at_the_front(exchange.armed.fault, key)
        _refuse_other_version(http)
        form = await form_of(http)
        call = self._call(exchange, form)
        if route.method != "POST" or key is None:
            return await self._execute_locked(exchange, call)
        bound = Request(route.method, http.url.path, form, exchange.request_id)
        keys = self._keys.setdefault(secret_key, IdempotencyKeys())
        return await self._execute_once(exchange, call, keys, key, bound)

    def _call(self, exchange: Exchange, form: Form) -> Call:
        params = checked(form, exchange.route.shape, exchange.route.required)
        expand = params.pop("expand", [])
        path_id = exchange.http.path_params.get("id", "")
        return Call(self._store, exchange.http.url.path, path_id, params, expand)

    async def _execute_once(
        self, exchange: Exchange, call: Call, keys: IdempotencyKeys, key: str, bound: Request
    ) -> Answer:
        kept = keys.claim(key, bound, self._store.clock.now())
        if kept is not None:
            return kept
        try:
            answer = await self._execute_locked(exchange, call)
            keys.keep(key, answer)
        finally:
            keys.release(key)
        return answer

    async def _execute_locked(self, exchange: Exchange, call: Call) -> Answer:
        if exchange.route.method == "GET":
            await _held_before(exchange)
            return self._executed(exchange, call)
        with self._lock(call.path_id):
            await self._before_execution(call)
            await _held_before(exchange)
            return self._executed(exchange, call)

    def _executed(self, exchange: Exchange, call: Call) -> Answer:
        if exchange.is_met_by("error_before"):
            return _failed(exchange)
        try:
            answer = Answer(200, exchange.route.handler(call))
        except ApiError as error:
            answer = error.answer()
        self._note_events(exchange)
        is_lost = exchange.is_met_by("error_after") and exchange.armed and exchange.armed.fault.is_kept
        return server_error().answer() if is_lost else answer

    def _note_events(self, exchange: Exchange) -> None:
        events = self._store.take_emitted()
        for event in events:
            event.request_id, event.idempotency_key = exchange.request_id, exchange.idempotency_key
        exchange.webhooks = self._webhooks.plan(events)

    @contextmanager
    def _lock(self, object_id: str) -> Iterator[None]:
        # A test token is no object: each use of it makes a new one.
        is_token = self._store.cards.of_method_token(object_id) is not None
        held = set() if is_token or not object_id else {object_id}
        if held & self._locked:
            raise object_locked(object_id)
        self._locked |= held
        try:
            yield
        finally:
            self._locked -= held


async def form_of(request: HttpRequest) -> Form:
    return decode((await request.body()).decode(errors="replace") if request.method == "POST" else request.url.query)


async def _held_before(exchange: Exchange) -> None:
    if exchange.armed and exchange.is_met_by("hold_before"):
        await exchange.armed.hold()


def _failed(exchange: Exchange) -> Answer:
    """A 500 without an effect: an answer if it is to be kept, or raised, as if execution had never begun."""
    error = server_error()
    if exchange.armed and exchange.armed.fault.is_kept:
        return error.answer()
    raise error


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
    if version != STRIPE_VERSION:
        raise invalid_request(f"Invalid Stripe API version: {version}. The double speaks {STRIPE_VERSION} alone.")
