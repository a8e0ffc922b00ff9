"""Adapters: every token of a provider's usage in exactly one item."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centavo import Item, UsageEvent, UsageMalformed
from centavo.adapters import anthropic_items, gemini_items, openai_items

counts = st.integers(0, 10_000_000)


def quantities(items: tuple[Item, ...]) -> dict[str, int]:
    found = {item.category: int(item.quantity) for item in items}
    assert len(found) == len(items), "a category stands twice"
    return found


def as_object(usage: Any) -> Any:
    """The same usage with attributes instead of keys, as the providers' libraries give it."""
    return json.loads(json.dumps(usage), object_hook=lambda fields: SimpleNamespace(**fields))


CHAT = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 640, "audio_tokens": 100},
    "completion_tokens_details": {
        "reasoning_tokens": 300,
        "audio_tokens": 20,
        "accepted_prediction_tokens": 7,
        "rejected_prediction_tokens": 5,
    },
}
RESPONSES = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 640, "cache_write_tokens": 200},
    "output_tokens": 500,
    "output_tokens_details": {"reasoning_tokens": 300},
    "total_tokens": 1500,
}
MESSAGES = {
    "input_tokens": 10,
    "cache_read_input_tokens": 2000,
    "cache_creation_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    "output_tokens": 500,
    "output_tokens_details": {"thinking_tokens": 450},
    "server_tool_use": {"web_search_requests": 1},
    "service_tier": "standard",
}
GEMINI = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 640,
    "candidatesTokenCount": 300,
    "thoughtsTokenCount": 200,
    "toolUsePromptTokenCount": 50,
    "totalTokenCount": 1550,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 800}, {"modality": "AUDIO", "tokenCount": 200}],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 600}, {"modality": "AUDIO", "tokenCount": 40}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 42}, {"modality": "IMAGE", "tokenCount": 258}],
}


class TestOpenAI:
    def test_chat_usage(self) -> None:
        assert quantities(openai_items(CHAT, model="gpt-4o-audio")) == {
            "llm_prompt": 260,
            "llm_prompt_cached": 640,
            "llm_prompt_audio": 100,
            "llm_completion": 180,
            "llm_reasoning": 300,
            "llm_completion_audio": 20,
        }

    def test_responses_usage(self) -> None:
        assert quantities(openai_items(RESPONSES, model="gpt-5")) == {
            "llm_prompt": 160,
            "llm_prompt_cached": 640,
            "llm_prompt_cache_write": 200,
            "llm_completion": 200,
            "llm_reasoning": 300,
        }

    def test_usage_without_details_or_with_null_details(self) -> None:
        plain = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        nulls = {**plain, "prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}}

        assert quantities(openai_items(plain, model="m")) == {"llm_prompt": 3, "llm_completion": 4}
        assert openai_items(plain, model="m") == openai_items(nulls, model="m")

    def test_audio_from_the_cache_counts_as_cached(self) -> None:
        usage = {
            "prompt_tokens": 100,
            "completion_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 90},
        }

        assert quantities(openai_items(usage, model="m")) == {"llm_prompt_cached": 80, "llm_prompt_audio": 20}

    @given(prompt=counts, completion=counts, data=st.data())
    def test_items_sum_to_the_total(self, prompt: int, completion: int, data: st.DataObject) -> None:
        cached = data.draw(st.integers(0, prompt))
        reasoning = data.draw(st.integers(0, completion))
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": cached,
                "cache_write_tokens": data.draw(st.integers(0, prompt - cached)),
                "audio_tokens": data.draw(st.integers(0, prompt)),
            },
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": data.draw(st.integers(0, completion - reasoning)),
            },
        }

        assert sum(quantities(openai_items(usage, model="m")).values()) == usage["total_tokens"]


class TestAnthropic:
    def test_message_usage(self) -> None:
        assert quantities(anthropic_items(MESSAGES, model="claude-sonnet-4-6")) == {
            "llm_prompt": 10,
            "llm_prompt_cached": 2000,
            "llm_prompt_cache_write": 100,
            "llm_prompt_cache_write_1h": 200,
            "llm_completion": 50,
            "llm_reasoning": 450,
        }

    def test_cache_writes_without_a_split_are_ordinary_ones(self) -> None:
        usage = {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 300, "cache_creation": None}

        assert quantities(anthropic_items(usage, model="m"))["llm_prompt_cache_write"] == 300

    @given(prompt=counts, output=counts, read=counts, for_5m=counts, for_1h=counts, data=st.data())
    def test_items_sum_to_all_input_and_output(
        self, prompt: int, output: int, read: int, for_5m: int, for_1h: int, data: st.DataObject
    ) -> None:
        usage = {
            "input_tokens": prompt,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": for_5m + for_1h,
            "cache_creation": {"ephemeral_5m_input_tokens": for_5m, "ephemeral_1h_input_tokens": for_1h},
            "output_tokens": output,
            "output_tokens_details": {"thinking_tokens": data.draw(st.integers(0, output))},
        }

        total = sum(quantities(anthropic_items(usage, model="m")).values())
        assert total == prompt + read + for_5m + for_1h + output


class TestGemini:
    def test_usage_metadata(self) -> None:
        assert quantities(gemini_items(GEMINI, model="gemini-2.5-flash")) == {
            "llm_prompt": 250,
            "llm_prompt_cached": 600,
            "llm_prompt_audio": 160,
            "llm_prompt_cached_audio": 40,
            "llm_completion": 42,
            "llm_completion_image": 258,
            "llm_reasoning": 200,
        }

    def test_the_library_spells_its_fields_otherwise_and_names_modalities_by_an_enumeration(self) -> None:
        modality = SimpleNamespace(name="AUDIO", value="AUDIO")
        usage = SimpleNamespace(
            prompt_token_count=10,
            candidates_token_count=None,
            thoughts_token_count=5,
            total_token_count=15,
            prompt_tokens_details=[SimpleNamespace(modality=modality, token_count=4)],
        )

        assert quantities(gemini_items(usage, model="m")) == {
            "llm_prompt": 6,
            "llm_prompt_audio": 4,
            "llm_reasoning": 5,
        }

    def test_a_total_that_leaves_out_tool_use_is_accepted(self) -> None:
        assert gemini_items({**GEMINI, "totalTokenCount": 1500}, model="m") == gemini_items(GEMINI, model="m")

    @given(prompt=counts, candidates=counts, thoughts=counts, tool_use=counts, data=st.data())
    def test_items_sum_to_the_total(
        self, prompt: int, candidates: int, thoughts: int, tool_use: int, data: st.DataObject
    ) -> None:
        usage = {
            "promptTokenCount": prompt,
            "cachedContentTokenCount": data.draw(st.integers(0, prompt)),
            "candidatesTokenCount": candidates,
            "thoughtsTokenCount": thoughts,
            "toolUsePromptTokenCount": tool_use,
            "totalTokenCount": prompt + candidates + thoughts + tool_use,
        }

        assert sum(quantities(gemini_items(usage, model="m")).values()) == usage["totalTokenCount"]


ALL = [(openai_items, CHAT), (openai_items, RESPONSES), (anthropic_items, MESSAGES), (gemini_items, GEMINI)]


@pytest.mark.parametrize(("adapter", "usage"), ALL)
def test_an_object_reads_like_a_dictionary(adapter: Any, usage: dict[str, Any]) -> None:
    assert adapter(as_object(usage), model="m") == adapter(usage, model="m")


@pytest.mark.parametrize(("adapter", "usage"), ALL)
def test_every_item_is_in_tokens_of_the_model_and_more_than_zero(adapter: Any, usage: dict[str, Any]) -> None:
    items = adapter(usage, model="the-model", provider="the-provider")

    assert {("the-provider", "the-model", "token")} == {(i.provider, i.model, i.unit) for i in items}
    assert all(item.quantity > 0 for item in items)


@pytest.mark.parametrize(
    ("adapter", "usage"),
    [
        (openai_items, {"prompt_tokens": 0, "completion_tokens": 0}),
        (anthropic_items, {"input_tokens": 0, "output_tokens": 0}),
        (gemini_items, {"promptTokenCount": 0}),
    ],
)
def test_no_tokens_at_all_still_make_an_event(adapter: Any, usage: dict[str, int]) -> None:
    event = UsageEvent(tenant_id="t", customer_id="c", items=adapter(usage, model="m"))

    assert quantities(event.items) == {"llm_prompt": 0}


@pytest.mark.parametrize(
    ("adapter", "usage", "complaint"),
    [
        (openai_items, None, "no prompt_tokens or input_tokens"),
        (openai_items, {"prompt_tokens": 5}, "no completion_tokens or output_tokens"),
        (openai_items, {**CHAT, "total_tokens": 1501}, "total of 1501 tokens, but its parts sum to 1500"),
        (openai_items, {**CHAT, "prompt_tokens_details": {"cached_tokens": 1001}}, "cached_tokens = 1001"),
        (openai_items, {**CHAT, "prompt_tokens_details": {"audio_tokens": 1001}}, "audio_tokens = 1001"),
        (openai_items, {**CHAT, "completion_tokens_details": {"reasoning_tokens": 501}}, "reasoning_tokens = 501"),
        (openai_items, {**CHAT, "prompt_tokens": -1}, "prompt_tokens = -1"),
        (openai_items, {**CHAT, "prompt_tokens": 1.5}, "prompt_tokens = 1.5"),
        (openai_items, {**CHAT, "prompt_tokens": "5"}, "prompt_tokens = '5'"),
        (openai_items, {**CHAT, "prompt_tokens": True}, "prompt_tokens = True"),
        (anthropic_items, {"output_tokens": 5}, "no input_tokens"),
        (anthropic_items, {**MESSAGES, "cache_creation_input_tokens": 299}, "splits it into 100 .* and 200"),
        (anthropic_items, {**MESSAGES, "output_tokens": 400}, "thinking_tokens = 450"),
        (gemini_items, {"candidatesTokenCount": 5}, "no prompt_token_count"),
        (gemini_items, {**GEMINI, "cachedContentTokenCount": 1001}, "prompt_token_count = 1000"),
        (gemini_items, {**GEMINI, "totalTokenCount": 1700}, "total of 1700 tokens, but its parts sum to 1550"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(adapter: Any, usage: Any, complaint: str) -> None:
    with pytest.raises(UsageMalformed, match=complaint):
        adapter(usage, model="m")
