"""Pubsub nodes with short notices."""
