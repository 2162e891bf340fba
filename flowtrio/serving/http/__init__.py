"""HTTP by ASGI: addresses, who may come in, Server-Sent Events, and what serves all that."""
