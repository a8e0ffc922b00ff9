"""Structured logs: one JSON object a line, on standard error, for our records and everybody else's."""

import logging
import re
import sys

import structlog

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
]

#: Secrets by what they look like: our keys, Stripe's, of webhooks, of a customer's browser; tokens; whatever is sent as
#: a bearer; passwords in addresses. Nobody means to log one: it comes in a path, or in what a library says.
_SECRETS = re.compile(
    r"""
    (centavo_key_ | [sr]k_(?:live|test)_ | _secret_) [\w-]+
    | (whsec_ | \bbearer\s+) [\w.~+/=-]+
    | (://[^\s:/@"]*:) [^\s"/]+ (?=@)
    | \beyJ [\w-]+ (?: \.[\w-]* )+
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
HIDDEN = "…"


def without_secrets(text: str) -> str:
    """A text as it may be logged.

    >>> without_secrets("no centavo_key_Zm9v in postgresql://ana:s3cret@db/centavo, nor eyJhbGciOiJub25lIn0.e30.c2ln")
    'no centavo_key_… in postgresql://ana:…@db/centavo, nor …'
    """
    return _SECRETS.sub(lambda found: f"{found[found.lastindex] if found.lastindex else ''}{HIDDEN}", text)


def _rendered(logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict) -> str:
    return without_secrets(str(_render(logger, name, event)))


_render = structlog.processors.JSONRenderer()


def configure(level: str = "INFO") -> None:
    """Send every log record of this process, Celery's too, to standard error as JSON."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _rendered,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Its connection pool says every request at INFO, with addresses that are nobody's business.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    logging.getLogger("stripe").setLevel(logging.WARNING)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one module: `log.info("usage recorded", charged=500)`."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return bound
