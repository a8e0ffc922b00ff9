"""What no request of `/v1` may exceed, whoever sends it: size and time of its body, and how many wait at once.

And where each request begins: for nobody, until it is known who asks.
"""

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import BODY, bounded_body
from api.errors import Busy, answered
from billing.errors import CentavoError
from config.settings import settings
from db.scope import afresh

PREFIX = "/v1"
#: Of more than can wait for a thread and a connection, the rest is told to come back.
WAITING_MAX = 200

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Bounds:
    """Reads the body within its bounds before anything looks at it; counts who waits to be answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with afresh():
            if scope["path"].startswith(PREFIX):
                await self._within_bounds(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _within_bounds(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] in _WITH_BODY:
                body = await bounded_body(Request(scope, receive), settings().api_bytes_max)
                scope[BODY] = body
                receive = _again(body, receive)
            await self._in_line(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except CentavoError as error:
            await answered(error, scope["path"])(scope, receive, send)

    async def _in_line(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Neither who still sends a body stands in it, nor who is slow to read an answer: they keep nobody waiting."""
        if self._waiting >= WAITING_MAX:
            raise Busy
        self._waiting += 1
        is_waiting = True

        def leave() -> None:
            nonlocal is_waiting
            self._waiting -= is_waiting
            is_waiting = False

        async def sending(message: Message) -> None:
            leave()
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            leave()


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read once more; then whatever comes after it."""
    left = [body]

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay
