"""The proof before the engine is ready: the peak memory of the longest request is measured, and the model answers."""

from __future__ import annotations

from app.contract.wire import Finished, Message
from app.engine.backend.interface import Backend, Counters, pass_cost
from app.engine.errors import NonFiniteLogits, RequestError, SelfTestFailed
from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.runtime.events import ProofProgress
from app.engine.sampling import Sampling
from app.engine.serving.admission import new_token_limit
from app.engine.serving.answer import AnswerRequest, answer

SELF_TEST_TOKENS = 4
"""One of the prompt's pass, and three steps: more of them would do the same again."""
SELF_TEST = PromptRequest((Message("user", "Hello! 你好！"),))


def prove(backend: Backend, chat: ChatFormat, progress: ProofProgress) -> None:
    """Runs the step that takes the most memory, then a short answer.

    Raises:
        SelfTestFailed: the model gives no answer.
    """
    request = self_test_request(backend, chat)
    answer_cost = pass_cost(len(request.prompt_ids)) + (request.limit - 1) * pass_cost(1)
    try:
        progress.begin((*backend.profile_costs(), answer_cost))
        backend.profile_run(progress.step_done)
        self_test(request, backend, chat)
        progress.step_done()
        backend.counters = Counters()  # only requests count
    except NonFiniteLogits as error:
        raise SelfTestFailed("the model's output is not finite: its weights are damaged") from error


def self_test_request(backend: Backend, chat: ChatFormat) -> AnswerRequest:
    """A greeting through the model's own chat format, answered greedily.

    Raises:
        SelfTestFailed: the format refuses a greeting, or the greeting does not fit.
    """
    try:
        prompt_ids = chat.prompt(SELF_TEST).ids
        limit = new_token_limit(len(prompt_ids), None, backend.max_model_len)
    except RequestError as error:
        raise SelfTestFailed(f"a plain greeting is refused: {error}") from error
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
    return AnswerRequest("self-test", prompt_ids, sampling, min(SELF_TEST_TOKENS, limit), prompt=SELF_TEST)


def self_test(request: AnswerRequest, backend: Backend, chat: ChatFormat) -> None:
    """Generates the answer.

    Raises:
        SelfTestFailed: it does not end.
        NonFiniteLogits: the model's output is not finite.
    """
    *_, last = answer(request, backend, chat)
    if not isinstance(last, Finished):
        raise SelfTestFailed("the model's answer does not end")
