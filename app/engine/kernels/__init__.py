"""How weights are multiplied: packed, quantised, and padded to few sizes."""
