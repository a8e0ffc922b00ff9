"""The OpenAPI document: what FastAPI knows of the routes, and the one shape of errors beside it."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import TYPE

TITLE = "Centavo"
VERSION = "1"
DESCRIPTION = """
The counter of a billing worker: what is left, may I, what would it cost, what happened, and why.

Decimals are texts. Amounts that end in `_minor` are whole minor units. Moments are in UTC. Lists come in pages: send
`next` back as `cursor`. What moves value wants an `Idempotency-Key`.
"""

PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong (RFC 9457). Programs go by `code`; further members are the fields of the error.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": [f"{TYPE}insufficient_credits"]},
        "title": {"type": "string", "examples": ["What is available does not cover what is asked for."]},
        "status": {"type": "integer", "examples": [402]},
        "detail": {"type": "string"},
        "code": {"type": "string", "examples": ["insufficient_credits"]},
        "available": {"type": "string", "description": "Of `insufficient_credits`.", "examples": ["0.5"]},
        "required": {"type": "string", "examples": ["0.54"]},
        "unit": {"type": "string", "examples": ["USD"]},
    },
    "additionalProperties": True,
}


def document(app: FastAPI) -> dict[str, Any]:
    """Made once."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(
            title=TITLE, version=VERSION, description=DESCRIPTION, routes=app.routes, openapi_version="3.1.0"
        )
        app.openapi_schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    return app.openapi_schema
