"""Metrics, the request log and the supervisor's status."""
