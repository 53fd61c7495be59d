"""The errors that end an engine or a request."""

from __future__ import annotations

from typing import ClassVar

from app.contract import exits
from app.contract.status import DeathCause
from app.contract.wire import Failed


class EngineError(Exception):
    """Ends the engine process; its text goes to the supervisor unchanged."""

    cause: ClassVar[DeathCause] = "crashed"
    exit_code: ClassVar[int] = 1


class BadCheckpoint(EngineError):
    """The checkpoint's files do not match its config.json, or have no chat model."""

    cause = "bad_checkpoint"
    exit_code = exits.ENGINE_BAD_CHECKPOINT


class SelfTestFailed(EngineError):
    """The model is loaded but gives no answer."""

    cause = "self_test"
    exit_code = exits.ENGINE_SELF_TEST


class NoCuda(EngineError):
    """The driver shows the GPU, but torch can't use it."""

    cause = "no_cuda"


class OutOfMemory(EngineError):
    """An allocation failed, on the host or on the GPU."""

    cause = "out_of_memory"
    exit_code = exits.ENGINE_OUT_OF_MEMORY


class RequestError(Exception):
    """Refuses or ends one request; the engine goes on."""

    def __init__(self, reply: Failed) -> None:
        super().__init__(reply.message)
        self.reply = reply


class NonFiniteLogits(Exception):
    """A forward pass gave NaN or infinity; no token can be sampled from that."""


MEMORY_ERROR_TEXTS = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "CUDA_ERROR_OUT_OF_MEMORY")
"""torch raises a plain RuntimeError for some failed allocations; only its text identifies it."""


def is_memory_error(error: BaseException) -> bool:
    """Whether an allocation failed. `torch.OutOfMemoryError` is recognised by name, so that torch is not imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY_ERROR_TEXTS)


def is_broken_device(error: BaseException) -> bool:
    """Whether the GPU's context is lost: every later call would fail too, and only a new process helps."""
    return type(error).__name__ == "AcceleratorError" or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )
