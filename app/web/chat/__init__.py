"""OpenAI's chat completions: requests, messages, tools, responses."""
