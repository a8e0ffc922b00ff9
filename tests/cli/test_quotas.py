"""`quotas set`, `list`, `check` and `end`, as a person uses them."""

from datetime import UTC, datetime

from services.metering.usage import record_usage
from tests.cli.conftest import Command
from tests.factories import an_envelope, an_event


def test_a_quota_is_set_listed_checked_and_ended(centavo: Command, ana: str) -> None:
    made = centavo("quotas", "set", "acme", "prompts", "1500", "--scope", "customer", "--hard", "--per", "day")
    again = centavo("quotas", "set", "acme", "prompts", "1600", "--scope", "customer", "--hard", "--per", "day")
    now = datetime.now(UTC)
    record_usage(an_envelope(an_event(ana, occurred_at=now)), now)

    listed = centavo("quotas", "list", "acme")
    fits, too_much = (centavo("quotas", "check", "acme", ana, "--tokens", str(number)) for number in (600, 601))
    as_json = centavo("quotas", "check", "acme", ana, "--tokens", "601", "--json")
    ended = centavo("quotas", "end", "acme", "prompts")

    assert made.out == "quota prompts: 1500 tokens a day, hard; it counts from now on\n"
    assert again.out == "quota prompts: 1600 tokens a day, hard; it was there already, and has this limit now\n"
    assert " ".join(listed.out.split()).endswith("prompts each customer 1600 tokens a day, hard –")
    assert (fits.status, fits.out.splitlines()[-1]) == (0, "allowed")
    assert (too_much.status, too_much.out.splitlines()[-1]) == (1, "refused")
    assert "prompts (refuses)" in too_much.out
    assert as_json.json == {
        "is_allowed": False,
        "quotas": [{"name": "prompts", "used": "1000", "remaining": "600", "refuses": True}],
    }
    assert ended.out == "quota prompts has ended\n"
    assert centavo("quotas", "list", "acme", "--json").json == []


def test_what_is_no_quota_is_explained(centavo: Command, ana: str) -> None:
    wrong = centavo("quotas", "set", "acme", "q", "much")
    nobodys = centavo("quotas", "set", "acme", "q", "1", "--scope", "customer", "--subject", "nobody")
    missing = centavo("quotas", "end", "acme", "q")

    assert "'much' is not an amount" in wrong.err
    assert "There is no such customer" in nobodys.err
    assert "There is no such quota; `centavo quotas list` shows what there is" in missing.err
    assert {wrong.status, nobodys.status, missing.status} == {1}
