"""Asking the API whatever its OpenAPI document allows, and what it forbids: requests that schemathesis makes up.

Half of them are about things that are there, or nothing but 404 would ever be answered.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as of_document

#: An answer that is not as the document says, in status, kind of content, headers or shape.
CHECKS = [
    of_document.status_code_conformance,
    of_document.content_type_conformance,
    of_document.response_headers_conformance,
    of_document.response_schema_conformance,
]
ALWAYS_ALLOWED = {405}
SECONDS_MAX = 30

Known = Mapping[str, Sequence[Any]]
"""Names of parameters and fields, with values that mean something."""


@dataclass
class Report:
    """What was asked, and what was answered otherwise than the document says."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    #: operation: the statuses that were seen of it
    answers: dict[str, Counter[int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def ask(document: dict[str, Any], url: str, bearer: str, known: Known, *, requests_each: int, start: int) -> Report:
    """Ask every operation so often, allowed and forbidden things by turns. The same start asks the same."""
    report = Report()
    schema = schemathesis.openapi.from_dict(document)
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.get_all_operations():
            operation = found.ok()  # type: ignore[union-attr]  # or it raises: the document is at fault
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _ask(_Asking(url, bearer, session, report), operation, mode, known, (requests_each, start))
    return report


@dataclass
class _Asking:
    """Sends a case and looks at what comes back."""

    url: str
    bearer: str
    session: requests.Session
    report: Report

    def send(self, case: Case[Any]) -> None:
        headers = {"Authorization": f"Bearer {self.bearer}"}
        response = case.call(base_url=self.url, session=self.session, headers=headers, timeout=SECONDS_MAX)
        report, name = self.report, f"{case.method} {case.path}"
        report.requests += 1
        report.statuses[response.status_code] += 1
        report.answers.setdefault(name, Counter())[response.status_code] += 1
        documented = set(case.operation.definition.raw["responses"])
        checks = CHECKS if "503" in documented and response.status_code == 503 else [not_a_server_error, *CHECKS]
        if response.status_code in ALWAYS_ALLOWED:
            return
        try:
            case.validate_response(response, checks=checks)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            said = "\n".join(str(one) for one in getattr(error, "exceptions", [error]))
            report.failures.append(f"{name}\n{said}\n{case.as_curl_command()}")


def _ask(asking: _Asking, operation: Any, mode: GenerationMode, known: Known, how: tuple[int, int]) -> None:
    number, start = how
    if mode is GenerationMode.NEGATIVE and not _can_be_negated(operation):
        mode = GenerationMode.POSITIVE

    @seed(start)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), dice=st.integers(0, 2**32))
    def one(case: Case[Any], dice: int) -> None:
        _mean_something(case, known, random.Random(dice), asking.report.requests)
        asking.send(case)

    one()


def _can_be_negated(operation: Any) -> bool:
    return bool(operation.body) or any(True for _ in operation.iter_parameters())


def _mean_something(case: Case[Any], known: Known, dice: random.Random, asked: int) -> None:
    """Let a case be about what is there, mostly; and under a key that is new, mostly."""
    for place in (case.path_parameters, case.query, case.body):
        if isinstance(place, dict):
            for name in place.keys() & known.keys():
                if dice.random() < 0.6:
                    place[name] = dice.choice(known[name])
    if "Idempotency-Key" in case.headers and dice.random() < 0.7:
        case.headers["Idempotency-Key"] = f"k{asked}"


def shown(report: Report) -> Iterator[str]:
    """The report, for people."""
    yield f"{report.requests} requests: " + ", ".join(f"{s}: {n}" for s, n in sorted(report.statuses.items()))
    for name, seen in sorted(report.answers.items()):
        yield f"  {name} " + ", ".join(f"{s}: {n}" for s, n in sorted(seen.items()))
