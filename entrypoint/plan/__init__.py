"""Settings, devices and checkpoint to a plan, by pure functions."""
