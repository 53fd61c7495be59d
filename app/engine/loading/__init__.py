"""Checkpoint files to a loaded, quantised and placed model."""
