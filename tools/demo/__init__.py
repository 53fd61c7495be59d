"""Trains and checks the bundled demo model."""
