"""A token's signature is verified once; what is kept of it outlives neither the token nor its keys."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api import tokens
from billing.errors import Unauthenticated
from config.settings import settings
from tests.api.asking import ADMIN, SECRET, VIEW, claims, keep_keys, secret_key, token


@pytest.fixture
def verified(jwt_keys: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tokens whose signatures were verified, in order."""
    assert jwt_keys
    settings.cache_clear()
    tokens._verified_before.clear()
    seen: list[str] = []
    verify = tokens._verified

    def noted(said: str, *more: Any) -> dict[str, Any]:
        seen.append(said)
        return verify(said, *more)

    monkeypatch.setattr(tokens, "_verified", noted)
    return seen


def test_the_same_token_is_verified_once_and_another_is_another(verified: list[str]) -> None:
    ana, root = token(claims("ana")), token(claims("root", ADMIN))

    found = [tokens.principal_of(one).subject for one in (ana, root, ana, root, ana)]

    assert found == ["ana", "root", "ana", "root", "ana"]
    assert verified == [ana, root]


def test_a_token_that_is_over_is_looked_at_again_and_refused(
    verified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the second, as the library has it: until its end, and the leeway for clocks."""
    expires_at = int(time.time()) + 3600
    said = token(claims("ana", exp=expires_at))
    tokens.principal_of(said)

    for moment, times in ((expires_at + 4, 1), (expires_at + 5, 2)):
        at = datetime.fromtimestamp(moment, UTC)
        monkeypatch.setattr("config.clock.unmoved", lambda at=at: at)
        tokens.principal_of(said)
        assert len(verified) == times

    over = token(claims("ana", exp=expires_at - 7200))
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            tokens.principal_of(over)


def test_a_key_that_is_taken_out_is_missed_at_once(verified: list[str], jwt_keys: Path) -> None:
    said = token(claims("ana", VIEW))
    tokens.principal_of(said)

    keep_keys(jwt_keys, secret_key("next", SECRET[::-1]))

    with pytest.raises(Unauthenticated):
        tokens.principal_of(said)
    keep_keys(jwt_keys, secret_key())
    assert tokens.principal_of(said).subject == "ana"
    assert len(verified) == 2


def test_other_settings_are_asked_at_once(verified: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = token(claims("ana", VIEW))
    tokens.principal_of(said)

    monkeypatch.setenv("CENTAVO_API_JWT_AUDIENCE", "somebody else")
    settings.cache_clear()

    with pytest.raises(Unauthenticated):
        tokens.principal_of(said)


def test_no_more_is_kept_than_a_bound(verified: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "VERIFIED_MAX", 2)

    for name in ("a", "b", "c"):
        tokens.principal_of(token(claims(name)))
        assert len(tokens._verified_before) <= 2
