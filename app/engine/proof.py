"""The proof before the engine is ready: the peak memory of the longest request is measured, and the model answers."""

from __future__ import annotations

from app.contract.wire import Finished, Message
from app.engine.backend.interface import Backend, Counters
from app.engine.errors import NonFiniteLogits, RequestError, SelfTestFailed
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.sampling import Sampling
from app.engine.serving.admission import new_token_limit
from app.engine.serving.answer import AnswerRequest, answer

SELF_TEST_TOKENS = 8
SELF_TEST = PromptRequest((Message("user", "Hello! 你好！"),))


def prove(backend: Backend, chat: ChatFormat) -> None:
    """Runs the step that takes the most memory, then a short answer.

    Raises:
        SelfTestFailed: the model gives no answer.
    """
    try:
        backend.profile_run()
        self_test(backend, chat)
        backend.counters = Counters()  # only requests count
    except NonFiniteLogits as error:
        raise SelfTestFailed("the model's output is not finite: its weights are damaged") from error


def self_test(backend: Backend, chat: ChatFormat) -> None:
    """Generates a short greedy answer through the model's own chat format.

    Raises:
        SelfTestFailed: the format refuses a greeting, or the greeting does not fit.
        NonFiniteLogits: the model's output is not finite.
    """
    try:
        prompt_ids = chat.prompt(SELF_TEST).ids
        limit = new_token_limit(len(prompt_ids), None, backend.max_model_len)
    except RequestError as error:
        raise SelfTestFailed(f"a plain greeting is refused: {error}") from error
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
    request = AnswerRequest("self-test", prompt_ids, sampling, min(SELF_TEST_TOKENS, limit), prompt=SELF_TEST)
    *_, last = answer(request, backend, chat)
    if not isinstance(last, Finished):
        raise SelfTestFailed("the model's answer does not end")
