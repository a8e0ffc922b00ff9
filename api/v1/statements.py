"""Statements: what a customer's closed periods came to, for programs, for the screen and on paper."""

from enum import StrEnum
from typing import Annotated, Any

from fastapi import Path, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import Field

from api.access import Seen
from api.fields import Answer
from api.routes import Responses, problems, router
from services.cycle import statements
from services.cycle.statement_pages import Language, as_html, as_json, as_pdf

routes = router("statements")

NUMBER_MAX = 2**62


#: What a statement may come as, for the document.
_FORMS: Responses = {
    200: {
        "description": "The statement, in the form that was asked for.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/html": {"schema": {"type": "string"}},
            "application/pdf": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Form(StrEnum):
    """As what a statement comes."""

    JSON = "json"
    HTML = "html"
    PDF = "pdf"


class Statements(Answer):
    """The statements of a customer, the first one first; their names are those of `version`."""

    statements: list[dict[str, Any]] = Field(description="Decimals are texts; moments are in UTC.")


@routes.get(
    "/customers/{customer_id:path}/statements",
    operation_id="list_statements",
    summary="A customer's statements",
    responses=problems(404),
)
def list_statements(seen: Seen) -> Statements:
    """One for each period that is closed."""
    return Statements(statements=[as_json(one) for one in statements.of_known_customer(*seen)])


@routes.get(
    "/customers/{customer_id:path}/statements/{number}",
    operation_id="get_statement",
    summary="One statement",
    response_class=JSONResponse,
    responses=problems(404, but=_FORMS),
)
def get_statement(
    seen: Seen,
    number: Annotated[int, Path(ge=1, le=NUMBER_MAX)],
    form: Annotated[Form, Query(alias="format")] = Form.JSON,
    language: Annotated[Language, Query(description="Of a page.")] = Language.PT_BR,
) -> Response:
    """As JSON, as a page in a language, or as the same page in a PDF."""
    found = statements.find_of_customer(*seen, number)
    match form:
        case Form.JSON:
            return JSONResponse(as_json(found))
        case Form.HTML:
            # The page needs nothing but itself, and may do nothing but be shown.
            policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
            return HTMLResponse(as_html(found, language), headers=policy)
        case Form.PDF:
            name = {"Content-Disposition": f'inline; filename="statement-{number}.pdf"'}
            return Response(as_pdf(found, language), headers=name, media_type="application/pdf")
