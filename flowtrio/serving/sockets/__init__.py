"""WebSockets by trio-websocket: handshake, framing, one session each."""
