"""What is shown is plain text without secrets, whatever it was made from."""

import pytest

from cli.show import plain, without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ana", "ana"),
        ("a\nb\x1b[31mc\x07", r"a\nb\x1b[31mc\x07"),
        ("[red]a[/] :smile:", "[red]a[/] :smile:"),
        ("\u202egpj", r"\u202egpj"),
        ("", "–"),
        (None, "–"),
    ],
)
def test_text_from_outside_stays_on_its_line(text: str | None, shown: str) -> None:
    """No control character of a key or a name reaches the terminal; an empty one is a dash."""
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ana:secret@db:5432/centavo", "postgresql://ana@db:5432/centavo"),
        (
            "postgresql://postgres@/postgres?host=/tmp/a&port=5432",
            "postgresql://postgres@/postgres?host=/tmp/a&port=5432",
        ),
        ("postgresql:///centavo?host=db&password=secret&a=b", "postgresql:///centavo?host=db&password=…&a=b"),
        ("postgresql:///centavo?user=a@b&PASSWORD=secret", "postgresql:///centavo?user=a@b&PASSWORD=…"),
        ("postgresql://ana:se:c@r/e?t@db/centavo", "postgresql://ana@db/centavo"),
        ("redis://:secret@broker:6379/0", "redis://broker:6379/0"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("amqp://a:secret@one//;amqp://a:secret@two//", "amqp://a@one//;amqp://a@two//"),
        ("secret", "…"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    """Also when the password holds characters that should have been escaped."""
    assert without_password(url) == shown
