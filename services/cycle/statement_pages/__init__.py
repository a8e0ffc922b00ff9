"""A statement as its reader wants it: JSON for programs, a page in the customer's language, the same on paper.

All of it follows from the `Statement` alone: no database, no clock, no environment. What renders is imported when
it is asked for, because a worker's pool child never needs it.
"""

from billing.statements import Statement
from services.cycle.statement_pages.documents import as_json, from_json
from services.cycle.statement_pages.languages import Language

__all__ = ["Language", "as_html", "as_json", "as_pdf", "from_json"]


def as_html(statement: Statement, language: Language | str) -> str:
    """One page that needs nothing but itself: no script, no network. Raises `BrokenInvariant` where it adds up wrong.

    Raises `ValueError` for a language that there is not.
    """
    from services.cycle.statement_pages.html import rendered
    from services.cycle.statement_pages.pages import page_of

    return rendered(page_of(statement, Language(language)))


def as_pdf(statement: Statement, language: Language | str) -> bytes:
    """The same page on A4; the same bytes for the same statement. Raises as `as_html` does."""
    from services.cycle.statement_pages.pages import page_of
    from services.cycle.statement_pages.pdf import printed

    return printed(page_of(statement, Language(language)), statement.issued_at)
