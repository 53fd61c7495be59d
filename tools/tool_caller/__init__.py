"""Trains the tiny models that call tools in the tests."""
