"""Redis or Valkey: runs and conversations that several processes share."""
