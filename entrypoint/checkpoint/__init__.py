"""Checkpoints, read from their headers without torch."""
