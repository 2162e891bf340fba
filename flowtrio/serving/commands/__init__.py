"""What a client may ask and is told, whatever carries it."""
