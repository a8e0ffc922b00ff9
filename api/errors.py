"""The one place where an error becomes an answer: `{"error": {"code", "message"}}`."""

from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from billing.errors import CentavoError, Conflict, NotFound, Rejected, Unavailable
from config.logging import logger
from config.settings import SettingsMissing
from payments.gateway import WebhookRefused

log = logger(__name__)


class BodyTooLarge(Rejected):
    """The body of this request is too large."""

    code = "body_too_large"


class Busy(Unavailable):
    """Too many requests wait for the database."""


def answer_errors(app: FastAPI) -> None:
    """Let every error of the app leave in one shape."""
    app.add_exception_handler(CentavoError, _ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(Exception, _of_nobody)


def error_response(status: int, code: str, message: str) -> JSONResponse:
    """An error as everybody who asks gets it."""
    # What was not read of a request would be taken for the next one's beginning.
    headers = {"Connection": "close"} if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else None
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CentavoError)
    status, code = _status(error), _code(error)
    log.warning("request refused", path=request.url.path, status=int(status), code=code, error=str(error))
    # What is wrong on our side is for our log, not for whoever asks.
    message = error.detail or str(error) if status < HTTPStatus.INTERNAL_SERVER_ERROR else _SAID[code]
    return error_response(status, code, message)


_SAID = {
    "not_configured": "This server lacks a setting that this request needs; its log says which.",
    "unavailable": "Something that this request needs is away; send it again later.",
    "internal": "Something went wrong here; it is logged.",
}


#: The first that fits; whatever else we raise is a fault of ours.
_STATUSES: tuple[tuple[type[CentavoError], HTTPStatus], ...] = (
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (Rejected, HTTPStatus.BAD_REQUEST),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (SettingsMissing, HTTPStatus.SERVICE_UNAVAILABLE),
)


def _status(error: CentavoError) -> HTTPStatus:
    fitting = (status for kind, status in _STATUSES if isinstance(error, kind))
    return next(fitting, HTTPStatus.INTERNAL_SERVER_ERROR)


def _code(error: CentavoError) -> str:
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


def _of_http(_request: Request, error: Exception) -> JSONResponse:
    """Of the framework: no such path, not this method."""
    refused = cast("HTTPException", error)
    phrase = HTTPStatus(refused.status_code).phrase
    response = error_response(refused.status_code, phrase.lower().replace(" ", "_"), str(refused.detail))
    response.headers.update(refused.headers or {})
    return response


def _of_validation(_request: Request, error: Exception) -> JSONResponse:
    problems = cast("RequestValidationError", error).errors()
    said = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in problems)
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", said)


def _of_nobody(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, exc_info=error)
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", _SAID["internal"])
