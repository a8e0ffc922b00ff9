"""Anthropic: Messages usage."""

from centavo.adapters.reading import Usage, items, rest
from centavo.errors import UsageMalformed
from centavo.events import Item

_WHOSE = "Anthropic"


def anthropic_items(usage: object, *, model: str, provider: str = "anthropic") -> tuple[Item, ...]:
    """Items for the `usage` of a message.

    Input is counted exclusively: `input_tokens` holds neither what was read from the cache nor what was
    written to it, so all input is the sum of the three. Output is counted inclusively: `output_tokens`
    holds the thinking, which is split off where `output_tokens_details` says how much it was. Anthropic
    states no total.

    Writing to the cache costs more when it is kept for an hour than for 5 minutes (the default). What
    `cache_creation` assigns to the hour becomes `llm_prompt_cache_write_1h`; everything else, and all of it
    where there is no such split, is `llm_prompt_cache_write`. Calls of server tools (web search) are not
    tokens and are left to the caller.

    Sources: anthropic-sdk-python `types/usage.py` (Usage), `types/cache_creation.py` (CacheCreation) and
    `types/output_tokens_details.py` (OutputTokensDetails); Claude documentation "Prompt caching".
    """
    read = Usage(usage, _WHOSE)
    output = read.required_tokens("output_tokens")
    thinking = read.part("output_tokens_details").tokens("thinking_tokens")
    written_5m, written_1h = _cache_writes(read)
    quantities = [
        ("llm_prompt", read.required_tokens("input_tokens")),
        ("llm_prompt_cached", read.tokens("cache_read_input_tokens")),
        ("llm_prompt_cache_write", written_5m),
        ("llm_prompt_cache_write_1h", written_1h),
        ("llm_completion", rest(_WHOSE, output, "output_tokens", thinking_tokens=thinking)),
        ("llm_reasoning", thinking),
    ]
    return items(provider, model, quantities)


def _cache_writes(read: Usage) -> tuple[int, int]:
    """Tokens written to the cache for 5 minutes, and for an hour."""
    written = read.tokens("cache_creation_input_tokens")
    split = read.part("cache_creation")
    for_5m = split.tokens("ephemeral_5m_input_tokens")
    for_1h = split.tokens("ephemeral_1h_input_tokens")
    if not for_5m + for_1h:
        return written, 0
    if read.field("cache_creation_input_tokens") is not None and for_5m + for_1h != written:
        raise UsageMalformed(
            f"Anthropic usage says cache_creation_input_tokens = {written}, but splits it into "
            f"{for_5m} for 5 minutes and {for_1h} for an hour"
        )
    return for_5m, for_1h
