"""Tokens in, tokens out: what runs the model, one batch at a time."""
