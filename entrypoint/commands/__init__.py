"""The commands: serve, plan, doctor and link."""
