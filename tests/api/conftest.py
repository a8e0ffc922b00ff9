"""The HTTP face, served by a real server on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import settings
from tests.api.asking import AUDIENCE, ISSUER, keep_keys, secret_key
from tests.api.serving import served_api
from tests.api.signed import SECRET


@pytest.fixture
def webhook_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_STRIPE_WEBHOOK_SECRETS", SECRET)


@pytest.fixture
def jwt_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the issuer's keys: one secret."""
    path = tmp_path / "keys.json"
    keep_keys(path, secret_key())
    for name, value in {"KEYS": str(path), "AUDIENCE": AUDIENCE, "ISSUER": ISSUER}.items():
        monkeypatch.setenv(f"CENTAVO_API_JWT_{name}", value)
    return path


@pytest.fixture
def api(billing_database: str, webhook_secrets: None, jwt_keys: Path) -> Iterator[str]:
    """The address of the API, on the test's database, broker and double."""
    settings.cache_clear()
    with served_api() as url:
        yield url
