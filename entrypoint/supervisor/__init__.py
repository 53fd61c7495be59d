"""Starts, watches and restarts the web service and the engine."""
