"""OpenAI: Chat Completions and Responses usage."""

from centavo.adapters.reading import Usage, check_total, items, rest
from centavo.events import Item

_WHOSE = "OpenAI"


def openai_items(usage: object, *, model: str, provider: str = "openai") -> tuple[Item, ...]:
    """Items for a `usage` of the Chat Completions API or of the Responses API.

    Both count inclusively: prompt (input) tokens include cached, cache-written and audio tokens, completion
    (output) tokens include reasoning and audio tokens, rejected predictions are ordinary completion
    tokens, and `total_tokens` is the sum of the two. Audio that came from the cache counts as cached.
    Services that speak the same protocol work too (name them in `provider`) if they count the same way; one
    that counts reasoning beside the completion raises `UsageMalformed`.

    Sources: openai-python `types/completion_usage.py` (CompletionUsage, PromptTokensDetails,
    CompletionTokensDetails) and `types/responses/response_usage.py` (ResponseUsage); OpenAI guide "Prompt
    caching"; Azure AI Projects reference "ResponseUsageInputTokensDetails" (`cache_write_tokens`).
    """
    read = Usage(usage, _WHOSE)
    prompt = read.required_tokens("prompt_tokens", "input_tokens")
    completion = read.required_tokens("completion_tokens", "output_tokens")
    total = read.tokens("total_tokens") if read.field("total_tokens") is not None else None
    check_total(_WHOSE, total, prompt + completion)
    return items(provider, model, [*_input(read, prompt), *_output(read, completion)])


def _input(read: Usage, prompt: int) -> list[tuple[str, int]]:
    details = read.part("prompt_tokens_details", "input_tokens_details")
    cached = details.tokens("cached_tokens")
    written = details.tokens("cache_write_tokens")
    fresh = rest(_WHOSE, prompt, "prompt_tokens", cached_tokens=cached, cache_write_tokens=written)
    audio = details.tokens("audio_tokens")
    rest(_WHOSE, prompt, "prompt_tokens", audio_tokens=audio)
    audio = min(audio, fresh)
    return [
        ("llm_prompt", fresh - audio),
        ("llm_prompt_cached", cached),
        ("llm_prompt_cache_write", written),
        ("llm_prompt_audio", audio),
    ]


def _output(read: Usage, completion: int) -> list[tuple[str, int]]:
    details = read.part("completion_tokens_details", "output_tokens_details")
    reasoning = details.tokens("reasoning_tokens")
    audio = details.tokens("audio_tokens")
    text = rest(_WHOSE, completion, "completion_tokens", reasoning_tokens=reasoning, audio_tokens=audio)
    return [("llm_completion", text), ("llm_reasoning", reasoning), ("llm_completion_audio", audio)]
