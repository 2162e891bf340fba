"""A server over the network, read like a stream."""
