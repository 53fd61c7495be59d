"""CUDA graphs of the decode step: one launch in place of a thousand, which take longer than the GPU's own work.

A graph repeats the recorded kernels over the same memory: what differs from step to step has to lie in its inputs, and
sizes are fixed. So there are a few (`graph_sizes`), and a step takes the smallest that holds it. One sequence has
rows of its own, which are copied from its slot; several are computed as the first slots, idle ones among them, whose
token is written behind what they hold, where nobody sees it and the next one that comes writes over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from app.engine.model.forward import Step
from app.engine.model.kv_cache import SlotCache
from app.engine.model.windows import Rows
from app.layouts.graph_sizes import StepSize

Run = Callable[[], torch.Tensor]
Capture = Callable[[Run], Run]
"""Makes of a run one that repeats it, over the same memory; its result is good until the next repetition."""
FixedStep = Callable[[torch.Tensor, Rows], torch.Tensor]
"""The model's layers over ids [rows]: hidden states [rows, hidden]."""
WARM_UPS = 2


class CudaCapture:
    """Records with torch; all graphs share one pool of memory, since they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        """See `Capture`. Raises RuntimeError where something in it can't be recorded."""
        # Libraries make themselves ready in their first runs, which must not be recorded, on another stream.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = run()

        def repeat() -> torch.Tensor:
            graph.replay()
            return result

        return repeat


class StepGraphs:
    """The recorded steps of one model over one cache."""

    def __init__(
        self, run: FixedStep, cache: SlotCache, dtype: torch.dtype, sizes: Sequence[StepSize], capture: Capture
    ) -> None:
        """Records all `sizes`, ascending; scores are in `dtype`. Raises RuntimeError where that can't be done."""
        self._slots = cache.slots
        (device,) = cache.devices
        # The largest first: the others fit into the memory that it leaves.
        recorded = {size: _Recorded(run, size, cache.slots, dtype, device, capture) for size in reversed(sizes)}
        self._recorded = {size: recorded[size] for size in sizes}

    def __call__(self, step: Step) -> torch.Tensor | None:
        """Hidden states [sequences, hidden] of a step; None where no recorded one holds it."""
        alone = len(step.slots) == 1
        rows, width = 1 if alone else step.slots[-1] + 1, max(step.positions) + 1
        for size, recorded in self._recorded.items():
            if size.rows >= rows and size.width >= width and (size.rows == 1) == (alone or self._slots == 1):
                return recorded(step)
        return None


class _Recorded:
    """One graph and its inputs."""

    def __init__(
        self, run: FixedStep, size: StepSize, slots: int, dtype: torch.dtype, device: torch.device, capture: Capture
    ) -> None:
        self._apart = size.rows == 1 and slots > 1
        self._rows = size.rows
        # Ids, slots and positions. While it is recorded, a row writes to a slot of its own.
        self._inputs = torch.zeros(3, size.rows, dtype=torch.long, device=device)
        self._inputs[1] = torch.arange(size.rows, device=device)
        places = torch.arange(size.width, device=device)

        def step() -> torch.Tensor:
            ids, own, positions = self._inputs.unbind()
            hidden = places > positions[:, None, None, None]
            bias = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
            return run(ids, Rows(own, positions, size.width, bias, copied=self._apart))

        self._repeat = capture(step)

    def __call__(self, step: Step) -> torch.Tensor:
        if self._apart:
            self._inputs.copy_(torch.tensor([step.ids, step.slots, step.positions]))
            return self._repeat()
        ids, positions = [0] * self._rows, list(step.lengths[: self._rows])
        for slot, token in zip(step.slots, step.ids, strict=True):
            ids[slot] = token
        self._inputs.copy_(torch.tensor([ids, range(self._rows), positions]))
        return self._repeat()[list(step.slots)]
