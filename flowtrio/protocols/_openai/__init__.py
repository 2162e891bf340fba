"""OpenAI's addresses: a request is read, and a run's log told as a completion or as a response.

::

    POST /v1/chat/completions ─ `_requests` ─ run ─ log ─ `_chat` ────── chunks, or one answer
           (`_routes`)             │
                                   ├─ `_parts`                `_errors`, `_usage`  for both
           (`_stored`)             │
    POST /v1/responses ─────── `_input` ───── run ─ log ─ `_responses` ─ events of items, `_items`
    GET  /v1/responses/{id} ───────────────── log ─ `_past` ─┘
"""
