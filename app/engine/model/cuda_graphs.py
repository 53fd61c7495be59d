"""CUDA graphs of the decode step: one launch instead of a thousand, which take longer than the GPU's own work.

A graph replays the recorded kernels over the same memory: what changes from step to step must be in its inputs, and
sizes are fixed. So there are a few sizes (`graph_sizes`), and a step uses the smallest that holds it. A single sequence
has a row of its own, copied from its slot. Several are computed as the first slots, with the idle ones among them: an
idle slot's token is written after those that it holds, where no mask shows it and the next token overwrites it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from app.engine.model.forward import DecodeStep
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import GraphWindow
from app.layouts.graph_sizes import StepSize

Run = Callable[[], torch.Tensor]
Capture = Callable[[Run], Run]
"""Turns a run into one that replays it over the same memory; its result is valid until the next replay."""
FixedStep = Callable[[torch.Tensor, GraphWindow], torch.Tensor]
"""The model's layers over ids [rows]: hidden states [rows, hidden]."""
WARM_UP_RUNS = 2


class CudaCapture:
    """Records CUDA graphs with torch; all share one memory pool, since they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        """Records a run. Raises RuntimeError if one of its operations can't be recorded."""
        # Libraries initialise themselves in their first runs, which must not be recorded, and on another stream.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = run()

        def replay() -> torch.Tensor:
            graph.replay()
            return result

        return replay


class DecodeGraphs:
    """The recorded decode steps of one model over one cache."""

    def __init__(
        self, run: FixedStep, cache: SlotCache, dtype: torch.dtype, sizes: Sequence[StepSize], capture: Capture
    ) -> None:
        """Records all `sizes`, ascending; scores are in `dtype`. Raises RuntimeError if one can't be recorded."""
        self._slots = cache.slots
        (device,) = cache.devices
        # The largest first: the others fit into its memory.
        graphs = {size: _DecodeGraph(run, size, cache.slots, dtype, device, capture) for size in reversed(sizes)}
        self._graphs = {size: graphs[size] for size in sizes}

    def __call__(self, step: DecodeStep) -> torch.Tensor | None:
        """Hidden states [sequences, hidden] of a step; None if no recorded size holds it."""
        single = len(step.slots) == 1
        rows, width = 1 if single else step.slots[-1] + 1, max(step.positions) + 1
        for size, graph in self._graphs.items():
            if size.rows >= rows and size.width >= width and (size.rows == 1) == (single or self._slots == 1):
                return graph(step)
        return None


class _DecodeGraph:
    """One graph and its inputs."""

    def __init__(
        self, run: FixedStep, size: StepSize, slots: int, dtype: torch.dtype, device: torch.device, capture: Capture
    ) -> None:
        self._copies = size.rows == 1 and slots > 1
        """Whether its row is copied from a slot."""
        self._rows = size.rows
        # Ids, slots and positions. While it is recorded, each row writes to a different slot.
        self._inputs = torch.zeros(3, size.rows, dtype=torch.long, device=device)
        self._inputs[1] = torch.arange(size.rows, device=device)
        key_positions = torch.arange(size.width, device=device)

        def step() -> torch.Tensor:
            ids, row_slots, positions = self._inputs.unbind()
            masked = key_positions > positions[:, None, None, None]
            bias = torch.zeros(masked.shape, dtype=dtype, device=device).masked_fill_(masked, -torch.inf)
            return run(ids, GraphWindow(row_slots, positions, size.width, bias, copied=self._copies))

        self._replay = capture(step)

    def __call__(self, step: DecodeStep) -> torch.Tensor:
        if self._copies:
            self._inputs.copy_(torch.tensor([step.ids, step.slots, step.positions]))
            return self._replay()
        ids, positions = [0] * self._rows, list(step.lengths[: self._rows])
        for slot, token in zip(step.slots, step.ids, strict=True):
            ids[slot] = token
        self._inputs.copy_(torch.tensor([ids, range(self._rows), positions]))
        return self._replay()[list(step.slots)]
