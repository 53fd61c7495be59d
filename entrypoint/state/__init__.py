"""The state directory: app config, status, ledger, API key."""
