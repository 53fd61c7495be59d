"""What is compared: a server with weights in one form."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.serving.checkpoint import SHAPE

SERVERS = {
    "berth": "Berth",
    "llama": "llama.cpp",
    "batching": "`transformers serve --continuous-batching`",
    "plain": "`transformers serve`",
}
LLAMA_FORMS = {"bf16": "F16", "int8": "Q8_0", "int4": "Q4_0"}
"""llama.cpp's counterpart of each of Berth's forms."""
BYTES_A_WEIGHT = {"bf16": 2.0, "int8": 1.0, "int4": 0.5625, "F16": 2.0, "Q8_0": 34 / 32, "Q4_0": 18 / 32}
"""Nominal, scales included; Berth's int4 with groups of 64."""


@dataclass(frozen=True)
class Contestant:
    """One of `SERVERS`, at one of Berth's precisions."""

    server: str
    precision: str

    @property
    def form(self) -> str:
        """As that server names it."""
        return LLAMA_FORMS[self.precision] if self.server == "llama" else self.precision

    @property
    def name(self) -> str:
        """For the report."""
        return f"{SERVERS[self.server]} {self.form}"

    @property
    def counterpart(self) -> Contestant | None:
        """Berth at the same precision; None for Berth itself."""
        return None if self.server == "berth" else Contestant("berth", self.precision)

    @property
    def read_bytes(self) -> float | None:
        """The weights that a token reads; None for `transformers serve`, whose quantised forms are others."""
        known = self.server in ("berth", "llama") or self.precision == "bf16"
        return matrix_weights() * BYTES_A_WEIGHT[self.form] if known else None


def matrix_weights() -> int:
    """Elements of all matrices but the embedding, of which a token reads one row."""
    heads = SHAPE.head_dim * (2 * SHAPE.heads + 2 * SHAPE.kv_heads)
    return SHAPE.hidden * (SHAPE.layers * (heads + 3 * SHAPE.intermediate) + SHAPE.vocab)


def contestants(servers: list[str], precisions: list[str]) -> list[Contestant]:
    """In the order of a round. The batching mode runs in bf16 alone: it has no quantised form on a CPU."""
    return [
        Contestant(server, precision)
        for precision in precisions
        for server in servers
        if server != "batching" or precision == "bf16"
    ]
