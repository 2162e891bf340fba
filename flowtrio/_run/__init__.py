"""One run: its channel, log, clock, nursery and end."""
