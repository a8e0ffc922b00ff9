"""Names that tenants and customers may have."""

from billing.errors import Rejected
from services.showing import readable


def check_name(name: str, what: str) -> None:
    """Raises `Rejected` for what is no name, or none that a database can keep: empty, with NUL or half a character."""
    if not name or "\0" in name or not _is_whole(name):
        raise Rejected(
            f"{what} is text without NUL and lone surrogates, of one character at least", given=readable(name)
        )


def _is_whole(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
