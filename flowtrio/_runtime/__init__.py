"""The runtime, on Trio: channel, run, stream, engine, agents and tools."""
