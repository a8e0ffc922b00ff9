"""Routes that are asked before every model call: FastAPI describes them, and they are answered without it.

It finds out anew with each request what a route depends on, and how, which costs more than the question itself. Here
that is found out once, from the same signature. What such a route may need is little: a customer in sight, a body,
parameters of the query, the request itself. A request that is not as it should be goes FastAPI's way, and is told
what it tells everybody.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, get_args, get_origin

from fastapi import Request
from fastapi.params import Depends, Query
from pydantic import BaseModel, TypeAdapter
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.access import SIGHTS, CustomerId, Sight, caller_of
from api.bodies import BODY
from api.routes import ExactRoute, exact_json
from api.threads import Threads

#: What every such route names in its path.
CUSTOMER = "customer_id"
JSON = "application/json"

_customer: TypeAdapter[str] = TypeAdapter(CustomerId)


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a route wants of a request: each by the name of its argument."""

    sight: tuple[str, Sight]
    body: tuple[str, type[BaseModel]] | None
    query: tuple[tuple[str, TypeAdapter[Any]], ...]
    request: str | None
    """Where it wants the request itself: for what the application keeps."""

    @classmethod
    def of(cls, endpoint: Callable[..., Any]) -> "_Needs":
        """Raises `TypeError` for what is not known here: it would not be answered as FastAPI answers it."""
        sights, bodies, query, request = [], [], [], None
        for name, said in inspect.signature(endpoint).parameters.items():
            match _marked(said.annotation):
                case Depends(dependency=way) if way is not None and way in SIGHTS:
                    sights.append((name, SIGHTS[way]))
                case Query() if said.default is not inspect.Parameter.empty:
                    query.append((name, TypeAdapter(said.annotation)))
                case type() as kind if kind is Request:
                    request = name
                case type() as model if issubclass(model, BaseModel):
                    bodies.append((name, model))
                case _:
                    raise TypeError(f"{endpoint.__name__} can't be asked directly: nothing is known of {name}")
        if len(sights) != 1 or len(bodies) > 1:
            raise TypeError(f"{endpoint.__name__} can't be asked directly: it wants one sight, and a body at most")
        return cls(sights[0], bodies[0] if bodies else None, tuple(query), request)

    def read(self, scope: Scope) -> tuple[str, dict[str, Any]]:
        """The customer, and all arguments but who is seen. Raises whatever stands against it."""
        customer_id = _customer.validate_python(scope["path_params"][CUSTOMER])
        said: dict[str, Any] = {}
        if self.query and scope["query_string"]:
            values = QueryParams(scope["query_string"])
            said = {name: kind.validate_python(values[name]) for name, kind in self.query if name in values}
        if self.body is not None:
            name, model = self.body
            said[name] = model.model_validate(_json_of(scope))
        return customer_id, said


class AskedRoute(ExactRoute):
    """A route that is answered so. Its endpoint runs in a thread for questions, and returns a `Response`."""

    def __init__(self, path: str, endpoint: Callable[..., Response], **said: Any) -> None:
        super().__init__(path, endpoint, **said)
        self._needs = _Needs.of(endpoint)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            asked = self._needs.read(scope) if scope["method"] in (self.methods or ()) else None
        except Exception:  # noqa: BLE001 - whatever it is, FastAPI finds it as well, and says it
            asked = None
        if asked is None:
            await super().handle(scope, receive, send)
            return
        response = await self._answer(Request(scope), *asked)
        await response(scope, receive, send)

    async def _answer(self, request: Request, customer_id: str, said: dict[str, Any]) -> Response:
        """Raises what authenticating, looking, and the endpoint raise."""
        caller = await caller_of(request)
        name, sight = self._needs.sight
        if self._needs.request is not None:
            said[self._needs.request] = request
        threads: Threads = request.app.state.asked
        with sight(caller, customer_id):
            said[name] = caller.tenant_id, customer_id
            return await threads.run(partial(self.endpoint, **said))


def _marked(annotation: Any) -> Any:
    """What FastAPI goes by: what a type is marked with, or the type."""
    if get_origin(annotation) is not Annotated:
        return annotation
    marks = [one for one in get_args(annotation)[1:] if isinstance(one, Depends | Query)]
    return marks[0] if len(marks) == 1 else None


def _json_of(scope: Scope) -> Any:
    kind = Request(scope).headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != JSON:
        raise ValueError("this is not said to be JSON")
    return exact_json(scope[BODY])
