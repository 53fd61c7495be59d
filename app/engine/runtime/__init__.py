"""The engine process and what it runs on: events, memory, GPU, imports."""
