"""Logs hide what looks like a secret, and nothing else."""

import json
import logging

import pytest

from config.logging import configure, logger, without_secrets

SECRETS = {
    "centavo_key_Zm9v-b_x": "centavo_key_…",
    "sk_live_abcDEF123": "sk_live_…",
    "rk_test_abc": "rk_test_…",
    "whsec_aGk+/=": "whsec_…",
    "seti_1Nv_secret_2Ab": "seti_1Nv_secret_…",
    "Bearer abc.def-123": "Bearer …",
    "authorization: bearer x/y+z==": "authorization: bearer …",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl": "…",
    "eyJhbGciOiJub25lIn0.e30.": "…",
    "postgresql://ana:s3cret@db/centavo": "postgresql://ana:…@db/centavo",
    "redis://:p@ss@broker:6379/0": "redis://:…@broker:6379/0",
    "/v1/customers/centavo_key_abc/wallet": "/v1/customers/centavo_key_…/wallet",
}
PLAIN = (
    "usage recorded",
    "http://127.0.0.1:8300/v1/customers/ana@example.com/wallet",
    "http://localhost:80/?next=a@b",
    "pi_3Nv and evt_1 at 10:20:30, 50 %",
    "the key is centavo_keyless",
)


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    assert without_secrets(f"a {text} b") == f"a {SECRETS[text]} b"


@pytest.mark.parametrize("text", PLAIN)
def test_everything_else_is_told(text: str) -> None:
    assert without_secrets(text) == text


def test_it_holds_for_our_records_others_and_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure()
    try:
        logger("test").warning("refused", path="/v1/centavo_key_one", why={"token": "eyJhbGciOiJub25lIn0.e30.c2ln"})
        logging.getLogger("of.a.library").warning("can't reach %s", "redis://:hidden@broker")
        try:
            int("sk_test_two")
        except ValueError as error:
            logger("test").error("failed", exc_info=error)
    finally:
        root.handlers[:], level = before
        root.setLevel(level)

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    text = json.dumps(lines)
    assert [line["event"] for line in lines] == ["refused", "can't reach redis://:…@broker", "failed"]
    assert [part for part in ("key_one", "eyJ", "hidden", "test_two") if part in text] == []
