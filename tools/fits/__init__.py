"""Which model fits which memory: table and plot."""
