"""What a page says, in one language, before it is HTML or PDF: so that both say the same.

Everything in it is text, ready to be shown, and none of it is markup: the names of customers and products are
other people's words.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from billing.money import ZERO
from billing.statements import AccountKind, Balance, Statement
from services.cycle.statement_pages.dates import day, days
from services.cycle.statement_pages.languages import Language, words
from services.cycle.statement_pages.numbers import currency_name, money, number
from services.cycle.statement_pages.sections import balances_of, sections_of, told_sections
from services.cycle.statement_pages.tables import Table, shown, table_of


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what it stands for, with what is worth knowing beneath."""

    name: str
    value: str
    small: str = ""


@dataclass(frozen=True, slots=True)
class AccountAtAGlance:
    """What an account came to, and how: its opening, each of its sections, its closing."""

    title: str
    result: Fact
    sums: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Facts under a title, and a sentence about them."""

    title: str
    facts: tuple[Fact, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """The tables of one account, or those of none."""

    title: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole statement. `page_of_pages` has {page} and {pages} in it, which only paper knows."""

    language: Language
    issuer: str
    title: str
    facts: tuple[Fact, ...]
    summary: str
    accounts: tuple[AccountAtAGlance, ...]
    note: Note | None
    chapters: tuple[Chapter, ...]
    page_of_pages: str


def page_of(statement: Statement, language: Language) -> Page:
    """The statement as its customer reads it. Raises `BrokenInvariant` if it does not add up: nobody is shown that."""
    statement.check()
    return Page(
        language=language,
        issuer=shown(statement.tenant_name),
        title=words(language, "title", number=statement.number),
        facts=tuple(_facts(statement, language)),
        summary=words(language, "summary"),
        accounts=tuple(_account(statement, balance, language) for balance in balances_of(statement)),
        note=_note(statement, language),
        chapters=tuple(_chapters(statement, language)),
        page_of_pages=words(language, "page", page="{page}", pages="{pages}"),
    )


def _facts(statement: Statement, language: Language) -> Iterator[Fact]:
    zone = statement.time_zone
    yield Fact(words(language, "customer"), shown(statement.customer_id))
    yield Fact(
        words(language, "period"),
        days(statement.period_start, statement.period_end, zone, language),
        words(language, "time_zone", time_zone=zone.replace("_", " ")),
    )
    version = words(language, "plan.version", version=statement.plan_version)
    yield Fact(words(language, "plan"), shown(statement.plan_name), version)
    yield Fact(words(language, "issued"), day(statement.issued_at, zone, language))


def _account(statement: Statement, balance: Balance, language: Language) -> AccountAtAGlance:
    amounts = (
        ("opening", balance.opening),
        *((f"section.{one.kind}", one.total) for one in sections_of(statement, balance)),
        ("closing", balance.closing),
    )
    sums = (Fact(words(language, key), shown(money(amount, balance.currency, language))) for key, amount in amounts)
    return AccountAtAGlance(_account_title(balance, language), _result(balance, language), tuple(sums))


def _account_title(balance: Balance, language: Language) -> str:
    return words(language, f"account.{balance.account}", currency=shown(currency_name(balance.currency, language)))


def _result(balance: Balance, language: Language) -> Fact:
    key, amount = "wallet.balance", balance.closing
    if balance.account == AccountKind.DUE:
        key = "owed" if amount > ZERO else "owed.favour" if amount < ZERO else "owed.nothing"
        amount = abs(amount)  # the words say on whose side it is
    elif amount < ZERO:
        key = "wallet.debt"
    return Fact(words(language, key), shown(money(amount, balance.currency, language)))


def _note(statement: Statement, language: Language) -> Note | None:
    """How the tiers came about; nothing where a plan covers no tokens."""
    if not (statement.included_tokens or statement.tiers):
        return None
    counts = {
        "used": statement.tokens,
        "included": statement.included_tokens,
        "beyond": max(0, statement.tokens - statement.included_tokens),
        "tiers": statement.tiers,
    }
    facts = (Fact(words(language, f"tokens.{key}"), number(count, language)) for key, count in counts.items())
    return Note(words(language, "tokens"), tuple(facts), words(language, "tokens.why"))


def _chapters(statement: Statement, language: Language) -> Iterator[Chapter]:
    for balance in balances_of(statement):
        if found := sections_of(statement, balance):
            tables = tuple(table_of(section, statement.time_zone, language) for section in found)
            yield Chapter(_account_title(balance, language), tables)
    if told := told_sections(statement):
        tables = tuple(table_of(section, statement.time_zone, language) for section in told)
        yield Chapter(words(language, "told"), tables)
