"""Before anybody is let in: the longest request's peak is measured, and the model answers once."""

from __future__ import annotations

from app.contract.wire import Finished, Message
from app.engine.backend.interface import Backend, Counters
from app.engine.errors import NonFiniteLogits, RequestError, SelfTestFailed
from app.engine.formats.base import ChatFormat, Conversation
from app.engine.sampling import Sampling
from app.engine.serving.admission import new_token_limit
from app.engine.serving.answer import AnswerRequest, answer

SELF_TEST_TOKENS = 8
SELF_TEST = Conversation((Message("user", "Hello! 你好！"),))


def prove(backend: Backend, chat: ChatFormat) -> None:
    """The step that takes the most memory, then a short answer.

    Raises:
        SelfTestFailed: the model does not answer.
    """
    try:
        backend.prove()
        self_test(backend, chat)
        backend.counters = Counters()  # only requests count
    except NonFiniteLogits as error:
        raise SelfTestFailed("the model's output is not finite: its weights are damaged") from error


def self_test(backend: Backend, chat: ChatFormat) -> None:
    """A short greedy answer through the real chat format.

    Raises:
        SelfTestFailed: the format refuses a greeting, or it does not fit.
        NonFiniteLogits: the model's output is no numbers.
    """
    try:
        prompt_ids = chat.prompt(SELF_TEST).ids
        room = new_token_limit(len(prompt_ids), None, backend.max_model_len)
    except RequestError as error:
        raise SelfTestFailed(f"a plain greeting is refused: {error}") from error
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
    request = AnswerRequest("self-test", prompt_ids, sampling, min(SELF_TEST_TOKENS, room), conversation=SELF_TEST)
    *_, last = answer(request, backend, chat)
    if not isinstance(last, Finished):
        raise SelfTestFailed("the model's answer has no end")
