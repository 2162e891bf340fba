"""Requests of OpenAI's chat completions, whose shape a conversation has here anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._media import with_media_behind, with_notes
from ._messages import carried_for, to_send
from ._openai_chat_media import OPENAI, ChatMedia
from ._schemas import held_to

KNOWN = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias"),
        *("logprobs", "max_completion_tokens", "max_tokens", "metadata", "modalities", "n"),
        *("parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key"),
        *("prompt_cache_retention", "reasoning_effort", "response_format"),
        *("safety_identifier", "seed", "service_tier", "stop", "store", "stream_options"),
        *("temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user"),
        *("verbosity", "web_search_options", "thinking", "enable_thinking"),
        *("thinking_budget", "enable_search", "search_options", "translation_options"),
        *("vl_high_resolution_images", "tool_stream", "do_sample", "reasoning"),
        *("reasoning_format", "include_reasoning", "provider", "models", "route"),
        *("transforms", "plugins", "usage", "preset", "cache_control", "session_id"),
        *("search_parameters", "search_settings", "compound_custom", "documents"),
        *("citation_options", "safe_prompt", "random_seed", "prompt_mode", "search_mode"),
        *("search_domain_filter", "search_recency_filter", "search_after_date_filter"),
        *("search_before_date_filter", "return_images", "return_related_questions", "top_k"),
        *("top_a", "min_p", "typical_p", "repetition_penalty", "length_penalty"),
        *("min_tokens", "stop_token_ids", "ignore_eos", "allowed_token_ids", "bad_words"),
        *("skip_special_tokens", "include_stop_str_in_output", "add_generation_prompt"),
        *("continue_final_message", "chat_template", "chat_template_kwargs"),
        *("mm_processor_kwargs", "guided_json", "guided_regex", "guided_choice"),
        *("guided_grammar", "structured_outputs", "priority", "best_of", "grammar"),
        *("json_schema", "cache_prompt", "id_slot", "n_predict", "samplers", "mirostat"),
        *("dynatemp_range", "timings_per_token", "return_progress", "reasoning_in_content"),
        *("keep_alive", "num_ctx"),
    }
)
"""Fields of a request: OpenAI's, then, a line or two each, those that are known of DashScope,
DeepSeek, OpenRouter, Groq, Mistral, Perplexity, vLLM and llama.cpp. The conversation is none."""


def encode_request(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
    *,
    stream: bool,
    media: ChatMedia = OPENAI,
) -> dict[str, Any]:
    """The body of a request.

    Args:
      model: The model's name.
      messages: The conversation; the private key ``flowtrio`` is taken out.
      tools: Tools to offer.
      options: Further keys of the body; None takes a key out. ``output_schema=(name, schema)``
        becomes the ``response_format``, strict where it can be, and ``tools`` join the others.
      stream: Whether the answer is to be streamed.
      media: How the host takes images and files.

    Raises:
      ProviderError: a message has a part that the host does not take.

    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            encode_message(message, media)
            for message in with_media_behind(
                with_notes(to_send(messages, "openai_chat"), media.encode)
            )
        ],
    }
    if tools:
        body["tools"] = [dict(tool) for tool in tools]
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    for key, value in options.items():
        if key == "output_schema":
            if value is None:
                continue
            name, schema = value
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": name, **held_to(schema)},
            }
        elif key == "tools" and value is not None:
            body["tools"] = [*(body.get("tools") or ()), *map(dict, value)]
        else:
            body[key] = value
    if not stream:
        body.pop("stream_options", None)
    return {key: value for key, value in body.items() if value is not None}


def encode_message(message: Mapping[str, Any], media: ChatMedia = OPENAI) -> dict[str, Any]:
    """A message as the provider wants it: without our private key, with what was carried for it."""
    encoded = {key: value for key, value in message.items() if key != "flowtrio"}
    if isinstance(encoded.get("content"), list):
        encoded["content"] = [media.encode(part) for part in encoded["content"]]
    encoded.update(carried_for(message, "openai_chat") or {})
    if isinstance(encoded.get("tool_calls"), list):
        encoded["tool_calls"] = [
            {key: value for key, value in call.items() if key != "flowtrio"}
            for call in encoded["tool_calls"]
        ]
    return encoded
