"""Real processes for tests: the engine, the web service, the whole service, and clients of theirs."""
