"""What happens around runs: conversations, stores, followers."""
