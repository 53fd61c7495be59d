"""Quantises to the CPU's own forms of int8 and int4, a block of rows at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from app.engine.kernels import int4_linear
from app.engine.kernels.int4_linear import Int4Linear
from app.engine.kernels.int8_linear import Int8Linear, pack_rows, quantised_rows
from app.engine.loading.checkpoint import StoredRows
from app.engine.loading.weights import RowBlock, check_blocks
from app.layouts.cpu_products import INT8_PIECES, int4_rows, int8_piece_rows


class CpuInt8:
    """Bytes with a scale for each row, the row's largest magnitude / 127.

    Packing takes longer than reading: a few pieces are packed at the same time, while the next ones are read.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(torch.get_num_threads(), INT8_PIECES), "pack")
        self._pending: deque[Future[None]] = deque()

    def module(self, _name: str, linear: torch.nn.Linear) -> Int8Linear:
        """An empty module in place of `linear`."""
        return Int8Linear(linear.in_features, linear.out_features, linear.bias)

    def fill(self, model: Any, rows: StoredRows, blocks: Iterator[RowBlock]) -> None:
        """Quantises the blocks, and packs them."""
        self.set_rows(model, rows, (quantised_rows(block) for _, _, block in blocks))

    def set_rows(self, model: Any, rows: StoredRows, blocks: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Packs blocks of int8 rows with their fp32 scales, in the order of the rows."""
        module = model.get_submodule(rows.parameter.name.removesuffix(".weight"))
        height, columns = rows.parameter.shape
        step = int8_piece_rows(columns)
        sizes = [min(step, height - start) for start in range(0, height, step)]
        module.pieces = [None] * len(sizes)
        index, weight, scale, filled = 0, torch.empty(0), torch.empty(0), 0
        for values, scales in blocks:
            while len(values):
                if not filled:
                    weight = torch.empty(sizes[index], columns, dtype=torch.int8)
                    scale = torch.empty(sizes[index])
                count = min(len(values), sizes[index] - filled)
                weight[filled : filled + count], scale[filled : filled + count] = values[:count], scales[:count]
                values, scales, filled = values[count:], scales[count:], filled + count
                if filled == sizes[index]:
                    self._pack(module, index, weight, scale)
                    index, filled = index + 1, 0

    def finish(self) -> None:
        """Waits for the last pieces."""
        while self._pending:
            self._pending.popleft().result()
        self._pool.shutdown()

    def _pack(self, module: Int8Linear, index: int, weight: torch.Tensor, scale: torch.Tensor) -> None:
        def pack() -> None:
            module.pieces[index] = pack_rows(weight, scale)

        while len(self._pending) >= INT8_PIECES:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(pack))


class CpuInt4:
    """Groups of 64 elements with a scale and a zero point, whose range has the least squared error of a few."""

    def module(self, name: str, linear: torch.nn.Linear) -> Int4Linear:
        """An empty module in place of `linear`. Raises BadCheckpoint if its rows are no whole groups."""
        check_blocks(name, linear)
        return Int4Linear(linear.in_features, linear.out_features, linear.bias)

    def fill(self, model: Any, rows: StoredRows, blocks: Iterator[RowBlock]) -> None:
        """Quantises and packs the blocks."""
        module = model.get_submodule(rows.parameter.name.removesuffix(".weight"))
        height, columns = rows.parameter.shape
        padded = int4_rows(height)
        codes = torch.empty(padded, columns // 2, dtype=torch.uint8)
        groups = torch.zeros(module.groups.shape, dtype=torch.bfloat16)
        for start, end, block in blocks:
            values, scales = int4_linear.quantised(block)
            groups[:, start:end] = scales.transpose(0, 1)
            last = int4_rows(end)
            values = torch.nn.functional.pad(values, (0, 0, 0, last - end))
            codes[start:last] = int4_linear.packed_codes(values)
        module.codes, module.groups = codes, groups

    def finish(self) -> None:
        """Each weight is in its place already."""
