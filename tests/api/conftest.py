"""The HTTP face, served by a real server on loopback."""

from collections.abc import Iterator

import pytest

from config.settings import settings
from tests.api.serving import served_api
from tests.api.signed import SECRET


@pytest.fixture
def webhook_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_STRIPE_WEBHOOK_SECRETS", SECRET)


@pytest.fixture
def api(billing_database: str, webhook_secrets: None) -> Iterator[str]:
    """The address of the API, on the test's database, broker and double."""
    settings.cache_clear()
    with served_api() as url:
        yield url
