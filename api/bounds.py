"""What no request of `/v1` may exceed, whoever sends it: size and time of its body, and how many wait at once."""

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import bounded_body
from api.errors import Busy, answered
from billing.errors import CentavoError
from config.settings import settings

PREFIX = "/v1"
#: Of more than can wait for a thread and a connection, the rest is told to come back.
WAITING_MAX = 200

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Bounds:
    """Reads the body within its bounds before anything looks at it; counts who is under way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        self._waiting += 1
        try:
            await self._bounded(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except CentavoError as error:
            await answered(error, scope["path"])(scope, receive, send)
        finally:
            self._waiting -= 1

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._waiting > WAITING_MAX:
            raise Busy
        if scope["method"] not in _WITH_BODY:
            await self._app(scope, receive, send)
            return
        body = await bounded_body(Request(scope, receive), settings().api_bytes_max)
        await self._app(scope, _again(body, receive), send)


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read once more; then whatever comes after it."""
    left = [body]

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay
