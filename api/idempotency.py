"""Routes that move value: done once per `Idempotency-Key`, and answered the same way ever after."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import Header, Request, Response
from pydantic import BaseModel

from api.errors import IDEMPOTENCY_KEY
from billing.access import Principal
from config import clock
from services import requests
from services.requests import Act

REPLAYED = "Idempotency-Replayed"

IdempotencyKey = Annotated[
    str,
    Header(
        alias=IDEMPOTENCY_KEY,
        min_length=1,
        max_length=requests.KEY_CHARACTERS_MAX,
        pattern=r"^[\x21-\x7e]+$",
        description="The same one when the request is repeated: it is then answered as the first time, "
        f"with `{REPLAYED}: true`. With another body, or on another path: 409.",
        examples=["grant-2026-11-ana"],
    ),
]


def answered_once(
    request: Request,
    caller: Principal,
    idempotency_key: str,
    body: BaseModel,
    work: Callable[[datetime], tuple[int, BaseModel]],
    *,
    act: Act | None = None,
) -> Response:
    """Do the work once, and answer with what it came to. `work` is given when it was asked for first."""

    def written(first_at: datetime) -> tuple[int, str]:
        status, answer = work(first_at)
        return status, answer.model_dump_json()

    # The path as it was sent: two customers' paths are two requests.
    operation = f"{request.method} {request.url.path}"
    asked = requests.Request(caller, idempotency_key, operation, _one_spelling(body), act)
    found = requests.once(asked, written, clock.now())
    headers = None if found.is_new else {REPLAYED: "true"}
    return Response(found.text, found.status, headers, media_type="application/json")


def _one_spelling(body: BaseModel) -> bytes:
    """What was said, whatever order and white space it came in."""
    return json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True).encode()
