"""The command line: what ``flowtrio`` does in a terminal."""
