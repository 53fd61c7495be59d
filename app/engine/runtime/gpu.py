"""What is different on an NVIDIA GPU: its allocator and how its memory is measured."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence

from app.engine.errors import NoCuda

CONTEXT_GUESS_BYTES = 600 << 20
"""Used where NVML does not tell; torch 2.x on recent cards takes 0.4 to 0.6 GiB."""

log = logging.getLogger(__name__)


def prepare() -> None:
    """Sets the allocator up; must run before torch is loaded. Segments that grow leave less memory unusable."""
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def check_cuda(uuids: Sequence[str]) -> None:
    """Raises NoCuda, with what is known of the cause, if torch can't use the GPUs that this process was given."""
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if count < len(uuids):
            raise NoCuda(f"torch finds {count} of {len(uuids)} GPUs (CUDA_VISIBLE_DEVICES={','.join(uuids)})")
        return
    if torch.version.cuda is None:
        raise NoCuda(
            f"torch {torch.__version__} is a CPU-only wheel; install the CUDA build (TORCH=cuda for the image)"
        )
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoCuda(f"{error}; NVIDIA_DRIVER_CAPABILITIES must include compute") from error
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise NoCuda(f"{' '.join(str(error).split())} (CUDA_VISIBLE_DEVICES={','.join(uuids)})") from error
    raise NoCuda(f"torch {torch.__version__} finds no GPU (CUDA_VISIBLE_DEVICES={','.join(uuids)})")


def free_bytes(uuid: str) -> int | None:
    """Free memory of the GPU by NVML, which needs no CUDA context; None where it does not tell."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        log.info("NVML does not tell the GPU's free memory: %s", error)
        return None


class GpuMeter:
    """What torch's allocator reserved, and what CUDA took beside it (context, kernels, library workspaces)."""

    def __init__(self, uuid: str, index: int) -> None:
        """`index` is torch's number of the GPU in this process."""
        self._free_before = free_bytes(uuid)
        self._index = index
        self._context = 0

    def _context_bytes(self) -> int:
        import torch

        if self._free_before is None:
            return CONTEXT_GUESS_BYTES
        free, _total = torch.cuda.mem_get_info(self._index)
        taken = self._free_before - free - torch.cuda.memory_reserved(self._index)
        self._context = max(self._context, taken)
        return self._context

    def now_bytes(self) -> int:
        import torch

        return self._context_bytes() + torch.cuda.memory_reserved(self._index)

    def peak_bytes(self) -> int:
        import torch

        return self._context_bytes() + torch.cuda.max_memory_reserved(self._index)

    def stop(self) -> None:
        """Nothing runs: torch counts by itself."""
