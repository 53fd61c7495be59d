"""How fast Berth answers through HTTP, beside `transformers serve` on the same machine, in the same minutes."""
