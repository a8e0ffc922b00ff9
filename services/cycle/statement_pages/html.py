"""A page as HTML that needs nothing but itself."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from services.cycle.statement_pages.pages import Page


def rendered(page: Page) -> str:
    """The page as one document. Whatever it says is escaped."""
    return _template().render(page=page)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
