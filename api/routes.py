"""How routes of `/v1` read bodies, and what they say about themselves in the OpenAPI document."""

import json
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.errors import MEDIA_TYPE

#: Each status that a problem may have, and when.
PROBLEMS = {
    400: "What is asked for can't be: `code` says why.",
    401: "No token, no key, or one that does not hold.",
    402: "What is available does not cover it: `available` and `required` say how far.",
    403: "Whoever asks may not do this.",
    404: "There is no such thing, or it is another tenant's.",
    408: "The body did not come in time.",
    409: "This contradicts what is recorded: a key that was used for something else.",
    413: "The body is too large.",
    422: "A field is missing, unknown, or not of its kind.",
    429: "Too many requests: `Retry-After` says when to come back.",
    500: "A fault of ours; it is logged.",
    503: "The database, or whatever else it needs, is away: ask again, with the same key.",
}
_ALWAYS = (400, 401, 403, 422, 429, 500, 503)
_WITH_BODY = (408, 413)


Responses = dict[int | str, dict[str, Any]]


def problems(*more: int, has_body: bool = False, but: Responses | None = None) -> Responses:
    """The errors that a route may answer with: what all have, and these; but for those that it describes itself."""
    statuses = sorted({*_ALWAYS, *more, *(_WITH_BODY if has_body else ())})
    said: Responses = {
        status: {
            "description": PROBLEMS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
    return said | (but or {})


def answered(answer: BaseModel, status: int = 200) -> Response:
    """An answer as it is, for what is asked most.

    FastAPI would validate a second time what was valid when it was made, in a thread for which the request waits.
    """
    return Response(answer.model_dump_json(), status, media_type="application/json")


def exact_json(body: bytes) -> Any:
    """JSON by its digits: a float would change the 18th in silence. Raises `ValueError`."""
    return json.loads(body, parse_float=Decimal, parse_constant=_no_number)


class _ExactRequest(Request):
    """A request whose JSON is read by its digits."""

    async def json(self) -> Any:
        if not hasattr(self, "_exact"):
            self._exact = exact_json(await self.body())
        return self._exact


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


class ExactRoute(APIRoute):
    """A route that reads such requests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def exactly(request: Request) -> Response:
            return await handler(_ExactRequest(request.scope, request.receive))

        return exactly


def router(*tags: str, route_class: type[ExactRoute] = ExactRoute) -> APIRouter:
    """A router of `/v1`."""
    return APIRouter(prefix="/v1", tags=[*tags], route_class=route_class)
