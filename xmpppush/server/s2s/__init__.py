"""Streams between servers: finding them, TLS with them, and who they are."""
