"""Chat formats: messages to prompt ids and generated ids to messages, one module per GLM generation."""
