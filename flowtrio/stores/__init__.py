"""Where conversations and logs are kept."""
