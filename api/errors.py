"""The one place where an error becomes an answer: a problem document (RFC 9457), with the status that fits.

`code` is what programs go by: it never changes its meaning. Fields that an error carries (`available`, `required`, …)
stand beside it, decimals as texts.
"""

from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from billing.errors import (
    CentavoError,
    Conflict,
    Forbidden,
    InsufficientCredits,
    NotFound,
    QuotaExceeded,
    Rejected,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from billing.money import written
from config.logging import logger
from config.settings import SettingsMissing
from payments.gateway import WebhookRefused

log = logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:centavo:problem:"
#: What a program that was told to come back later waits, if nobody knows better.
RETRY_SECONDS = 2
SHOWN_MAX = 20
IDEMPOTENCY_KEY = "Idempotency-Key"


class BodyTooLarge(Rejected):
    """The body of this request is too large."""

    code = "body_too_large"


class BodyTooSlow(Rejected):
    """The body of this request did not come in time."""

    code = "body_too_slow"


class Busy(Unavailable):
    """Too many requests wait for the database."""


def answer_errors(app: FastAPI) -> None:
    """Let every error of the app leave in one shape."""
    app.add_exception_handler(CentavoError, _ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(Exception, _of_nobody)


def error_response(
    status: int, code: str, title: str, detail: str = "", fields: Mapping[str, Any] | None = None
) -> JSONResponse:
    """An error as everybody who asks gets it. No field takes the place of what every problem says."""
    fields = fields or {}
    problem = {"type": f"{TYPE}{code}", "title": title, "status": int(status), "detail": detail or title, "code": code}
    said = {name.rstrip("_"): _plain(value) for name, value in fields.items()}
    return JSONResponse(said | problem, status, _headers(status, fields), media_type=MEDIA_TYPE)


def answered(error: CentavoError, path: str) -> JSONResponse:
    """An error that was raised on purpose."""
    status, code = _status(error), code_of(error)
    log.warning("request refused", path=path, status=int(status), code=code, error=str(error))
    # What is wrong on our side is for our log, not for whoever asks.
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return error_response(status, code, _SAID[code])
    return error_response(status, code, (error.__doc__ or "").strip().splitlines()[0], error.detail, error.fields)


def code_of(error: CentavoError) -> str:
    """What programs go by."""
    match error:
        case WebhookRefused():
            return error.problem.value
        case Rejected():
            return error.code
        case Unavailable():
            return "unavailable"
        case SettingsMissing():
            return "not_configured"
    return "internal"


_SAID = {
    "not_configured": "This server lacks a setting that this request needs; its log says which.",
    "unavailable": "Something that this request needs is away; send it again later.",
    "internal": "Something went wrong here; it is logged.",
}


#: The first that fits; whatever else we raise is a fault of ours.
STATUSES: tuple[tuple[type[CentavoError], HTTPStatus], ...] = (
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (InsufficientCredits, HTTPStatus.PAYMENT_REQUIRED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (NotFound, HTTPStatus.NOT_FOUND),
    (BodyTooSlow, HTTPStatus.REQUEST_TIMEOUT),
    (Conflict, HTTPStatus.CONFLICT),
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (TooManyRequests, HTTPStatus.TOO_MANY_REQUESTS),
    (QuotaExceeded, HTTPStatus.TOO_MANY_REQUESTS),
    (Rejected, HTTPStatus.BAD_REQUEST),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (SettingsMissing, HTTPStatus.SERVICE_UNAVAILABLE),
)


def _status(error: CentavoError) -> HTTPStatus:
    fitting = (status for kind, status in STATUSES if isinstance(error, kind))
    return next(fitting, HTTPStatus.INTERNAL_SERVER_ERROR)


def _headers(status: int, fields: Mapping[str, Any]) -> dict[str, str] | None:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE | HTTPStatus.REQUEST_TIMEOUT:
            # What was not read of a request would be taken for the next one's beginning.
            return {"Connection": "close"}
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": str(fields.get("retry_after_seconds", RETRY_SECONDS))}
    return None


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return written(value)
        case None | bool() | int() | str():
            return value
    return str(value)


def _ours(request: Request, error: Exception) -> JSONResponse:
    return answered(cast("CentavoError", error), request.url.path)


def _of_http(_request: Request, error: Exception) -> JSONResponse:
    """Of the framework: no such path, not this method, a body that is no JSON."""
    refused = cast("HTTPException", error)
    phrase = HTTPStatus(refused.status_code).phrase
    response = error_response(
        refused.status_code, phrase.lower().replace(" ", "_"), phrase, str(refused.detail or phrase)
    )
    response.headers.update(refused.headers or {})
    return response


def _of_validation(_request: Request, error: Exception) -> JSONResponse:
    """What was wrong with which field; without what was sent, which may be long, or a secret in the wrong place."""
    problems = cast("RequestValidationError", error).errors()
    said = [{"field": ".".join(map(str, one["loc"])), "problem": one["msg"]} for one in problems[:SHOWN_MAX]]
    detail = "; ".join(f"{one['field']}: {one['problem']}" for one in said)
    response = error_response(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "This request is not well-formed.", detail)
    if all(tuple(one["loc"]) == ("header", IDEMPOTENCY_KEY) for one in problems):
        title = (
            f"This needs a header {IDEMPOTENCY_KEY} of 1 to 255 visible characters: the same one when it is repeated."
        )
        response = error_response(HTTPStatus.BAD_REQUEST, "idempotency_key_missing", title)
    return response


def _of_nobody(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, exc_info=error)
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", _SAID["internal"])
