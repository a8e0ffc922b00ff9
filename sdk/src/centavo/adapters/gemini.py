"""Google Gemini: the usage metadata of generated content."""

from collections.abc import Iterable

from centavo.adapters.reading import Usage, check_total, items, rest
from centavo.events import Item

_WHOSE = "Gemini"


def gemini_items(usage: object, *, model: str, provider: str = "google") -> tuple[Item, ...]:
    """Items for a `usage_metadata` (`usageMetadata` as JSON, in either spelling of its fields).

    The prompt includes what came from the cache. Tool-use prompts (results handed back to the model), the
    candidates and the thoughts are each counted beside it; tool-use prompts are input and are billed as
    `llm_prompt`. The documented total is the sum of these four, except where the Developer API's page leaves
    the tool-use prompt out of it: either sum is accepted. Audio is split off where the details name it, and
    images where they are output: those have their own prices. Other input is billed alike.

    Sources: Gemini API reference "UsageMetadata"; python-genai `google/genai/types.py`
    (GenerateContentResponseUsageMetadata, ModalityTokenCount); Vertex AI reference
    "GenerateContentResponse.UsageMetadata"; Gemini API guide "Context caching".
    """
    read = Usage(usage, _WHOSE)
    prompt = read.required_tokens("prompt_token_count", "promptTokenCount")
    tool_use = read.tokens("tool_use_prompt_token_count", "toolUsePromptTokenCount")
    candidates = read.tokens("candidates_token_count", "candidatesTokenCount")
    thoughts = read.tokens("thoughts_token_count", "thoughtsTokenCount")
    names = ("total_token_count", "totalTokenCount")
    total = read.tokens(*names) if read.field(*names) is not None else None
    check_total(_WHOSE, total, prompt + tool_use + candidates + thoughts, prompt + candidates + thoughts)
    quantities = [
        *_input(read, prompt, tool_use),
        *_output(read, candidates),
        ("llm_reasoning", thoughts),
    ]
    return items(provider, model, quantities)


def _input(read: Usage, prompt: int, tool_use: int) -> list[tuple[str, int]]:
    cached = read.tokens("cached_content_token_count", "cachedContentTokenCount")
    audio = _of_modality("AUDIO", read.field("prompt_tokens_details", "promptTokensDetails"))
    cached_audio = _of_modality("AUDIO", read.field("cache_tokens_details", "cacheTokensDetails"))
    tool_audio = _of_modality("AUDIO", read.field("tool_use_prompt_tokens_details", "toolUsePromptTokensDetails"))
    cached_other = rest(_WHOSE, cached, "cached_content_token_count", audio=cached_audio)
    fresh_audio = rest(_WHOSE, audio, "audio in the prompt", cached=cached_audio)
    fresh = rest(_WHOSE, prompt, "prompt_token_count", cached=cached, audio=fresh_audio)
    tool_other = rest(_WHOSE, tool_use, "tool_use_prompt_token_count", audio=tool_audio)
    return [
        ("llm_prompt", fresh + tool_other),
        ("llm_prompt_cached", cached_other),
        ("llm_prompt_audio", fresh_audio + tool_audio),
        ("llm_prompt_cached_audio", cached_audio),
    ]


def _output(read: Usage, candidates: int) -> list[tuple[str, int]]:
    details = read.field("candidates_tokens_details", "candidatesTokensDetails")
    audio = _of_modality("AUDIO", details)
    image = _of_modality("IMAGE", details)
    text = rest(_WHOSE, candidates, "candidates_token_count", audio=audio, image=image)
    return [("llm_completion", text), ("llm_completion_audio", audio), ("llm_completion_image", image)]


def _of_modality(modality: str, details: Iterable[object] | None) -> int:
    """How many tokens a breakdown by modality assigns to this one. The modality may be an enumeration."""
    counts = [Usage(entry, _WHOSE) for entry in details or ()]
    return sum(count.tokens("token_count", "tokenCount") for count in counts if _name(count) == modality)


def _name(count: Usage) -> str:
    modality = count.field("modality")
    return str(getattr(modality, "value", modality)).upper()
