"""One sequence on a backend that runs nothing else."""

from __future__ import annotations

from app.engine.backend.interface import Backend, TokenRequest
from app.engine.sampling import Sampling

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


def tokens(
    backend: Backend,
    ids: tuple[int, ...],
    sampling: Sampling = GREEDY,
    count: int | None = None,
    required_prefixes: tuple[tuple[int, ...], ...] = (),
) -> list[int]:
    """The first `count` new tokens, without it as many as the context holds. Raises what the sequence fails by."""
    free = backend.max_model_len - len(ids)
    limit = free if count is None else min(count, free)
    slot = backend.add_request(TokenRequest(ids, sampling, required_prefixes))
    new_tokens: list[int] = []
    try:
        while len(new_tokens) < limit:
            for new in backend.step():
                assert new.slot == slot
                if isinstance(new.token, Exception):
                    raise new.token
                new_tokens.append(new.token)
    finally:
        backend.finish_request(slot)
    return new_tokens
