"""NVIDIA GPUs: their allocator, and how their memory is measured."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence

from app.engine.errors import NoCuda

CONTEXT_GUESS_BYTES = 600 << 20
"""Used if NVML does not report it; torch 2.x on recent cards takes 0.4 to 0.6 GiB."""

log = logging.getLogger(__name__)


def prepare() -> None:
    """Configures the allocator; call it before torch is imported. Segments that grow leave less memory unusable."""
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def check_cuda(uuids: Sequence[str]) -> None:
    """Raises NoCuda, with what is known of the cause, if torch can't use the GPUs assigned to this process."""
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
    """Free memory of the GPU by NVML, which needs no CUDA context; None if NVML does not report it."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        log.info("NVML does not report the GPU's free memory: %s", error)
        return None


class GpuMeter:
    """Measures what torch's allocator reserved, and what CUDA took besides (context, kernels, library workspaces)."""

    def __init__(self, uuid: str, index: int) -> None:
        """`index` is the number that torch gives the GPU in this process."""
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
        """Does nothing: torch counts by itself."""
