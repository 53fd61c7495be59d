"""How many questions the demo model answers word for word, at each precision."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

library: Any = transformers  # much of it is untyped
CHECKED_PRECISIONS = ("bf16", "int8", "int4")
QuestionAnswer = tuple[str, str]  # (question, expected answer)


def quiet() -> None:
    """Silences messages of the libraries that aren't about the model."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # at import it mentions an optional kernel
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()


def _quantization(precision: str) -> Any:
    """The forms of Berth's engine on a GPU: LLM.int8, or nf4 with double quantisation; lm_head stays 16-bit."""
    if precision == "int8":
        return library.BitsAndBytesConfig(load_in_8bit=True)
    if precision == "int4":
        return library.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return None


def load(folder: Path, precision: str) -> Any:
    """The model of `folder` on the CPU at `precision`."""
    options = {"quantization_config": config} if (config := _quantization(precision)) else {}
    model = library.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": "cpu"}, **options
    )
    return model.eval()


def answers(model: Any, tokenizer: Any, questions: Sequence[str], longest: int) -> list[str]:
    """Greedy answers of at most `longest` tokens to single questions, as one batch."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    prompt = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    stops = model.generation_config
    greedy = library.GenerationConfig(
        do_sample=False, max_new_tokens=longest, eos_token_id=stops.eos_token_id, pad_token_id=stops.pad_token_id
    )
    with torch.inference_mode():
        ids = model.generate(**prompt, generation_config=greedy)
    answer_ids = ids[:, prompt["input_ids"].shape[1] :]
    return [str(text) for text in tokenizer.batch_decode(answer_ids, skip_special_tokens=True)]


def wrong_answers(
    model: Any, tokenizer: Any, pairs: Sequence[QuestionAnswer], batch: int = 64
) -> list[tuple[str, str]]:
    """(question, answer) for every answer that isn't word for word the expected one."""
    by_length = sorted(pairs, key=lambda one: len(tokenizer.encode(one[1])))
    wrong = []
    for start in range(0, len(by_length), batch):
        part = by_length[start : start + batch]
        longest = len(tokenizer.encode(part[-1][1])) + 2
        texts = answers(model, tokenizer, [question for question, _ in part], longest)
        wrong += [(question, text) for (question, expected), text in zip(part, texts, strict=True) if text != expected]
    return wrong


def load_tokenizer(folder: Path) -> Any:
    return library.AutoTokenizer.from_pretrained(folder)
