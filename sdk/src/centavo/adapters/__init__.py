"""From a provider's usage object to the items of a usage event.

Each adapter takes the usage object of a response (as the provider's library gives it, or as decoded JSON) and
returns items in unit `token`. Every token is in exactly one item, so the quantities sum to the provider's own
total; tokens with a price of their own have a category of their own:

| category | tokens |
|---|---|
| `llm_prompt` | input, not from a cache and not written to one |
| `llm_prompt_cached` | input read from the provider's cache |
| `llm_prompt_cache_write` | input written to the cache (Anthropic: to be kept for 5 minutes) |
| `llm_prompt_cache_write_1h` | input written to the cache to be kept for an hour (Anthropic) |
| `llm_prompt_audio`, `llm_prompt_cached_audio` | input that is audio |
| `llm_completion` | output that is text |
| `llm_reasoning` | output spent on thinking |
| `llm_completion_audio`, `llm_completion_image` | output that is audio or image |

Quantities of zero are left out; if all are zero, one `llm_prompt` item of zero remains, since an event needs
an item. Numbers that contradict each other raise `UsageMalformed`: better no event than a wrong bill.

    UsageEvent.for_message(
        message_id=message_id,
        customer_id="customer-7",
        tenant_id="acme",
        items=adapters.openai_items(response.usage, model=response.model),
    )
"""

from centavo.adapters.anthropic import anthropic_items
from centavo.adapters.gemini import gemini_items
from centavo.adapters.openai import openai_items

__all__ = ["anthropic_items", "gemini_items", "openai_items"]
