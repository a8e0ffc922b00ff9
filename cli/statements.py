"""What closed periods came to: `statements list`, `show`, `export`."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from billing.money import written
from billing.statements import AccountKind, Statement
from cli.catalogue import CustomerId, TenantId
from cli.show import AsJson, a_table, as_json, console, moment, plain
from services.cycle import statements as service
from services.cycle.statement_pages import Language, as_html, as_pdf
from services.cycle.statement_pages import as_json as as_document

app = typer.Typer(help="What closed periods came to.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(min=1, help="A number from `centavo statements list`.")]


@app.command("list")
def list_(tenant_id: TenantId, customer_id: CustomerId, json: AsJson = False) -> None:
    """A customer's statements, the first one first."""
    found = service.of_customer(tenant_id, customer_id)
    if json:
        as_json([as_document(one) for one in found])
        return
    if not found:
        console.print("there is none yet: a period has one when it is closed, its grace after its end")
        return
    table = a_table(
        "number", "from (UTC)", "to (UTC)", "tokens", "tiers", "owed", numbers=("number", "tokens", "tiers", "owed")
    )
    for one in found:
        span = (moment(one.period_start), moment(one.period_end))
        table.add_row(str(one.number), *span, f"{one.tokens:,}", str(one.tiers), _owed(one))
    console.print(table)


@app.command()
def show(tenant_id: TenantId, number: Number, json: AsJson = False) -> None:
    """One statement with its lines."""
    found = service.find(tenant_id, number)
    if json:
        as_json(as_document(found))
        return
    console.print(f"statement {found.number} of {plain(found.customer_id)}, plan {plain(found.plan_name)}")
    span = f"{moment(found.period_start)} to {moment(found.period_end)} UTC"
    console.print(f"{span}, {found.tokens:,} tokens")
    table = a_table("account", "opening", "closing", numbers=("opening", "closing"))
    for balance in found.balances:
        account = f"{balance.account} {plain(balance.currency)}"
        table.add_row(account, written(balance.opening), written(balance.closing))
    console.print(table)
    lines = a_table("line", "what", "about", "quantity", "amount", numbers=("line", "quantity", "amount"))
    for line in found.lines:
        about = " ".join(str(value) for value in line.about.values())
        quantity = f"{written(line.quantity)} {line.unit}" if line.quantity is not None else ""
        amount = f"{line.currency} {written(line.amount)}" if line.account else ""
        lines.add_row(str(line.number), line.kind.value, plain(about), plain(quantity), plain(amount))
    console.print(lines)


@app.command()
def export(
    tenant_id: TenantId,
    number: Number,
    path: Annotated[Path, typer.Argument(help="A file that ends in .pdf, .html or .json.", dir_okay=False)],
    language: Annotated[Language, typer.Option(help="Of the page.")] = Language.PT_BR,
) -> None:
    """Write a statement as a page that a customer can read."""
    found = service.find(tenant_id, number)
    match path.suffix:
        case ".pdf":
            path.write_bytes(as_pdf(found, language))
        case ".html":
            path.write_text(as_html(found, language), encoding="utf-8")
        case ".json":
            path.write_bytes(msgspec.json.format(msgspec.json.encode(as_document(found)), indent=2))
        case other:
            raise typer.BadParameter(f"{other or 'no ending'}: a statement is written as .pdf, .html or .json")
    console.print(f"statement {number} is in {path}")


def _owed(statement: Statement) -> str:
    owed = [f"{b.currency} {written(b.closing)}" for b in statement.balances if b.account is AccountKind.DUE]
    return ", ".join(owed)
