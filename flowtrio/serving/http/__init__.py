"""The same server as an ASGI application, and the address that serves it."""
