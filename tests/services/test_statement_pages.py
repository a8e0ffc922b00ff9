"""A statement as JSON, as a page and on paper."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader

from billing.errors import BrokenInvariant
from billing.money import ZERO
from billing.statements import AccountKind, Balance, Line, LineKind, Statement
from services.cycle.statement_pages import Language, as_html, as_json, as_pdf, from_json, pdf
from services.cycle.statement_pages.dates import days
from services.cycle.statement_pages.languages import WORDS
from services.cycle.statement_pages.numbers import money, number
from services.cycle.statement_pages.pages import page_of
from services.cycle.statement_pages.sections import KINDS, sections_of, told_sections
from tests.services.statement_samples import (
    DUE,
    LONG,
    MARKUP,
    RIGHT_TO_LEFT,
    TURNING,
    WALLET,
    a_line,
    a_statement,
    an_extreme_statement,
    of,
    product,
)

LANGUAGES = pytest.mark.parametrize("language", Language)

texts = st.text(st.characters(codec="utf-8"), max_size=8)
amounts = st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**18), max_value=10**18)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
whole = st.integers(0, 10**15)
named = st.dictionaries(texts, texts | whole | st.none() | st.booleans() | st.lists(whole, max_size=2), max_size=2)
lines = st.builds(
    Line,
    number=whole,
    kind=st.sampled_from(LineKind),
    amount=amounts,
    account=st.none() | st.sampled_from(AccountKind),
    currency=st.none() | texts,
    quantity=st.none() | amounts,
    unit=st.none() | texts,
    events=st.none() | whole,
    about=named,
    reference=named,
)
balances = st.builds(Balance, st.sampled_from(AccountKind), texts, amounts, amounts)
statements = st.builds(
    Statement,
    **dict.fromkeys(("tenant_id", "tenant_name", "customer_id", "time_zone", "plan_id", "plan_name"), texts),
    **dict.fromkeys(("number", "plan_version", "tokens", "included_tokens", "tiers", "events"), whole),
    **dict.fromkeys(("issued_at", "period_start", "period_end"), moments),
    balances=st.lists(balances, max_size=2).map(tuple),
    lines=st.lists(lines, max_size=3).map(tuple),
)


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, and the text that is seen."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if data.strip() and self.tags[-1] != "style":
            self.texts.append(data.strip())


def pages_of(printed: bytes) -> list[str]:
    """The text of each page, its white space as plain spaces."""
    return [" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(printed)).pages]


@given(statements)
def test_what_is_kept_as_json_comes_back_as_it_was(statement: Statement) -> None:
    assert statement == from_json(as_json(statement))


def test_the_names_of_the_json_are_api() -> None:
    at = "2026-10-01T03:00:00Z"
    line = a_line(
        LineKind.VOID, "1.50", WALLET, currency="USD", quantity="2.0", unit="second", events=1,
        about={"model": "m"}, reference={"period_start": at},
    )  # fmt: skip

    assert as_json(of(line)) == {
        "version": 1,
        "tenant_id": "acme",
        "tenant_name": "Acme Inteligência",
        "customer_id": "padaria-sao-joao",
        "number": 42,
        "issued_at": "2026-12-01T05:12:07Z",
        "period_start": "2026-11-01T03:00:00Z",
        "period_end": "2026-12-01T03:00:00Z",
        "time_zone": "America/Sao_Paulo",
        "plan_id": "pro",
        "plan_version": 3,
        "plan_name": "Profissional",
        "tokens": 18_500_000,
        "included_tokens": 8_000_000,
        "tiers": 2,
        "events": 48_213,
        "balances": [{"account": "wallet", "currency": "USD", "opening": "3.274", "closing": "4.774"}],
        "lines": [
            {
                "number": 1,
                "kind": "void",
                "amount": "1.5",
                "account": "wallet",
                "currency": "USD",
                "quantity": "2",
                "unit": "second",
                "events": 1,
                "about": {"model": "m"},
                "reference": {"period_start": at},
            }
        ],
    }


@pytest.mark.parametrize("value", [Decimal("0.1"), datetime(2026, 1, 1, tzinfo=UTC), 0.1, ("a",), {1: "a"}])
def test_what_json_would_change_is_refused(value: object) -> None:
    with pytest.raises(BrokenInvariant, match="more than JSON can keep"):
        as_json(of(a_line(LineKind.CORRECTED, reference={"what": [value]})))


@pytest.mark.parametrize("changed", [{"version": 2}, {"version": None}, {"lines": None}, {"tokens": "many"}])
def test_another_document_is_no_statement(changed: dict[str, object]) -> None:
    with pytest.raises(BrokenInvariant):
        from_json({**as_json(a_statement()), **changed})


def test_every_language_has_the_same_words_with_the_same_values_in_them() -> None:
    def values(sentence: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(sentence) if name}

    asked = {language: {key: values(sentence) for key, sentence in WORDS[language].items()} for language in Language}

    assert set(WORDS) == set(Language)
    assert [language for language in Language if asked[language] != asked[Language.EN]] == []
    assert all(sentence.strip() for table in WORDS.values() for sentence in table.values())


def test_every_kind_of_line_has_a_word_and_a_section() -> None:
    sections = [kind for kinds in KINDS.values() for kind in kinds]

    assert sorted(sections) == sorted(LineKind)
    assert {f"kind.{kind}" for kind in LineKind} <= WORDS[Language.EN].keys()
    assert {f"section.{section}" for section in KINDS} <= WORDS[Language.EN].keys()


@pytest.mark.parametrize(
    ("amount", "currency", "brazilian", "english"),
    [
        ("1234.56", "BRL", "R$ 1.234,56", "R$1,234.56"),
        ("-1234.5", "USD", "-US$ 1.234,50", "-US$1,234.50"),
        ("0.000000000012", "USD", "US$ 0,000000000012", "US$0.000000000012"),
        ("1E+3", "JPY", "JP¥ 1.000,00", "JP¥1,000.00"),
        ("-0.00", "BRL", "R$ 0,00", "R$0.00"),
        ("1234.5", "CREDIT", "1.234,50 créditos", "1,234.50 credits"),
        ("-2", "POINTS", "-2,00 POINTS", "-2.00 POINTS"),
        ("123456789012345678901234.123456789012", "EUR", "€ 123.456.789.012.345.678.901.234,123456789012",
         "€123,456,789,012,345,678,901,234.123456789012"),
    ],
)  # fmt: skip
def test_money_is_written_as_the_language_writes_it(amount: str, currency: str, brazilian: str, english: str) -> None:
    written = [money(Decimal(amount), currency, language).replace("\xa0", " ") for language in Language]

    assert written == [brazilian, english]


@given(amounts, st.sampled_from(Language))
def test_no_digit_is_hidden(amount: Decimal, language: Language) -> None:
    point = {Language.PT_BR: (".", ","), Language.EN: (",", ".")}[language]
    plain = number(amount, language, 2).replace(point[0], "").replace(point[1], ".")

    assert Decimal(plain) == amount
    assert re.fullmatch(r"-?\d+\.\d\d+", plain)


@pytest.mark.parametrize(
    ("start", "end", "brazilian", "english"),
    [
        ("2026-11-01T03:00Z", "2026-12-01T03:00Z", "1 a 30 de novembro de 2026", "1 to 30 November 2026"),
        ("2026-12-15T03:00Z", "2027-01-15T03:00Z", "15 de dezembro de 2026 a 14 de janeiro de 2027",
         "15 December 2026 to 14 January 2027"),
        ("2026-11-01T03:00Z", "2026-11-01T15:00Z", "1 de novembro de 2026", "1 November 2026"),
        ("2026-11-01T03:00Z", "2026-11-01T03:00Z", "1 de novembro de 2026", "1 November 2026"),
    ],
)  # fmt: skip
def test_a_period_is_told_with_its_last_day(start: str, end: str, brazilian: str, english: str) -> None:
    period = datetime.fromisoformat(start), datetime.fromisoformat(end)

    assert [days(*period, "America/Sao_Paulo", language) for language in Language] == [brazilian, english]


@pytest.mark.parametrize("statement", [a_statement(), an_extreme_statement(20)])
def test_the_sections_of_an_account_come_to_its_balance_and_no_line_is_left_out(statement: Statement) -> None:
    sections = {balance: sections_of(statement, balance) for balance in statement.balances}

    for balance, found in sections.items():
        assert balance.opening + sum((section.total for section in found), ZERO) == balance.closing
    every = [*(one for found in sections.values() for one in found), *told_sections(statement)]
    assert sorted(line.number for section in every for line in section.lines) == [
        line.number for line in statement.lines
    ]


def test_a_table_adds_up_as_it_is_read() -> None:
    """What a customer would check with a pencil: the rows of each table, and the sums of each account."""
    page = page_of(a_statement(), Language.EN)

    def read(text: str) -> Decimal:
        return Decimal(re.sub(r"[^-\d.]", "", text))

    tables = [table for chapter in page.chapters[:-1] for table in chapter.tables]
    assert len(tables) == 7
    for amount in (table.columns[-1] for table in tables):
        assert sum((read(cell.text) for cell in amount.cells), ZERO) == read(amount.total.text)
    for account in page.accounts:
        *moved, closing = (read(fact.value) for fact in account.sums)
        assert sum(moved, ZERO) == closing


def test_numbers_of_a_column_have_their_points_under_one_another() -> None:
    (wallet,) = [
        chapter
        for chapter in page_of(a_statement(), Language.EN).chapters
        if chapter.title == "Wallet: US Dollar (USD)"
    ]
    usage = {column.head: column for column in wallet.tables[0].columns}

    assert [cell.text + cell.tail for cell in usage["Quantity"].cells] == [
        "12,840.50",
        "482,113.00",
        "214.25",
        "93,411.00",
    ]
    assert {len((cell.text + cell.tail).partition(".")[2]) for cell in usage["Cost (US$)"].cells} == {8}


@pytest.mark.parametrize(
    ("closing", "told"),
    [("120", "Amount owed R$120.00"), ("0", "Nothing is owed R$0.00"), ("-5", "In your favour R$5.00")],
)
def test_the_words_say_on_whose_side_an_amount_is(closing: str, told: str) -> None:
    moved = Decimal(closing) - Decimal("49.90")

    (account,) = page_of(of(a_line(LineKind.FEE, str(moved), DUE, currency="BRL")), Language.EN).accounts

    assert f"{account.result.name} {account.result.value}" == told


def test_a_plan_without_tokens_says_nothing_of_tiers() -> None:
    statement = replace(a_statement(), included_tokens=0, tiers=0)

    assert page_of(statement, Language.EN).note is None
    assert "tier" not in as_html(replace(statement, lines=(), balances=()), Language.EN).lower()


def test_what_does_not_add_up_is_shown_to_nobody() -> None:
    statement = a_statement()
    wrong = replace(statement, lines=statement.lines[1:])

    for render in (as_html, as_pdf):
        with pytest.raises(BrokenInvariant):
            render(wrong, Language.EN)


def test_a_language_that_is_not_spoken_is_refused() -> None:
    with pytest.raises(ValueError, match="de-DE"):
        as_html(a_statement(), "de-DE")


@LANGUAGES
def test_a_page_needs_nothing_but_itself(language: Language) -> None:
    reader = Reader(as_html(an_extreme_statement(20), language))

    assert ("html", "lang", language.value) in reader.attributes
    assert set(reader.tags).isdisjoint({"script", "link", "img", "iframe", "object", "a", "form", "base"})
    assert not [one for one in reader.attributes if one[1].startswith("on") or one[1] in {"src", "href", "style"}]
    assert "default-src 'none'" in str(reader.attributes)


@LANGUAGES
def test_a_table_is_one_to_a_screen_reader_too(language: Language) -> None:
    statement = a_statement()
    reader = Reader(as_html(statement, language))
    scopes = [value for tag, name, value in reader.attributes if (tag, name) == ("th", "scope")]
    totals = reader.tags.count("tfoot")

    assert reader.tags.count("table") == reader.tags.count("caption") == reader.tags.count("thead") == 9
    assert scopes.count("row") == len(statement.lines) + totals
    assert scopes.count("col") == reader.tags.count("th") - scopes.count("row")
    assert reader.tags.count("h1") == 1


@LANGUAGES
def test_other_people_s_texts_are_text(language: Language) -> None:
    """Markup is shown as it stands; what would turn the text around it, or can't be seen, is not."""
    page = as_html(an_extreme_statement(20), language)
    seen = Reader(page).texts

    assert "<script" not in page
    assert MARKUP in seen
    assert f"{MARKUP} {RIGHT_TO_LEFT}" in seen
    assert "ana\ufffdgnp.exe\ufffd " + LONG in seen
    assert {"\u202e", "\u2066"} & set(TURNING) == {"\u202e", "\u2066"}
    assert {"\u202e", "\u2066"} & set(page) == set()


@LANGUAGES
def test_paper_says_what_the_page_says(language: Language) -> None:
    seen = [" ".join(text.split()) for text in Reader(as_html(a_statement(), language)).texts[1:]]
    printed = as_pdf(a_statement(), language)
    paper = " ".join(pages_of(printed))

    assert printed.startswith(b"%PDF")
    # Without spaces, as a line of a narrow column may end anywhere; zeros that only align are on neither.
    assert [text for text in seen if text.replace(" ", "") not in paper.replace(" ", "") and text.strip(".,0")] == []


def test_paper_carries_markup_as_text_and_copies_long_names_whole() -> None:
    paper = "".join(pages_of(as_pdf(an_extreme_statement(5), Language.PT_BR))).replace(" ", "")

    assert MARKUP.replace(" ", "") in paper
    assert LONG in paper
    assert "\u200b" not in paper


def test_hundreds_of_lines_go_over_pages_with_their_heads_and_numbers() -> None:
    usage = (
        a_line(LineKind.USAGE, f"-0.{number:03d}", WALLET, currency="USD", quantity="1", unit="second", events=1,
               about=product(f"model-{number}"))
        for number in range(1, 301)
    )  # fmt: skip

    pages = pages_of(as_pdf(of(*usage), Language.PT_BR))

    assert len(pages) > 5
    assert [page for page in pages if page.count("Custo (US$)") != 1] == []
    for place, page in enumerate(pages, 1):
        assert f"Página {place} de {len(pages)}" in page
    assert re.search(r"model-300 .*Subtotal", pages[-1])
    assert [number for number in range(1, 301) if not any(f"model-{number} " in page for page in pages)] == []


def test_what_can_t_be_set_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program that sets pages may stumble, or hang: neither takes its caller along."""
    program = tmp_path / "typesetting.py"
    monkeypatch.setattr(pdf, "_PROGRAM", program)
    monkeypatch.setattr(pdf, "SECONDS_MAX", 0.5)

    program.write_text("raise SystemExit('no such font')")
    with pytest.raises(BrokenInvariant, match="no such font"):
        as_pdf(a_statement(), Language.EN)
    program.write_text("import time; time.sleep(60)")
    with pytest.raises(BrokenInvariant, match="not set within"):
        as_pdf(a_statement(), Language.EN)


def test_whoever_only_keeps_statements_loads_nothing_that_renders_them() -> None:
    """Pool children stay small: numbers, templates and type are loaded where a page is asked for."""
    loaded = "sorted({'babel', 'jinja2', 'typst'} & sys.modules.keys())"
    program = f"import sys, services.cycle.statement_pages; print({loaded})"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"[]\n"


@LANGUAGES
def test_the_same_statement_is_the_same_bytes(language: Language) -> None:
    once, again = (as_pdf(from_json(as_json(a_statement())), language) for _ in range(2))

    assert once == again
    assert as_html(a_statement(), language) == as_html(a_statement(), language)


def test_paper_knows_its_language_and_its_structure_and_carries_the_moment_of_issue() -> None:
    statement = replace(a_statement(), issued_at=datetime(2026, 12, 1, 2, tzinfo=UTC) + timedelta(microseconds=1))

    reader = PdfReader(io.BytesIO(as_pdf(statement, Language.PT_BR)))

    assert str(reader.root_object["/Lang"]) == "pt-BR"
    assert "'/Marked': True" in str(reader.root_object["/MarkInfo"])
    assert reader.metadata is not None
    assert reader.metadata.title == "Demonstrativo nº 42"
    assert reader.metadata.creation_date == datetime(2026, 12, 1, 2, tzinfo=UTC)
