"""Models: one client a protocol."""
