"""Berth: the service behind the entrypoint. docs/design.md describes its packages."""
