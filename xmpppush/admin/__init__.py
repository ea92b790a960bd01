"""Listeners of type http: health and metrics for operators."""
