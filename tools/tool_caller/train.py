"""Trains the checkpoint of tests/fixtures/tool-caller: small enough to commit, and it really calls tools.

    python -m tools.tool_caller.train           writes tests/fixtures/tool-caller (about a minute on two cores)

It has GLM-4's layers and GLM-4.5's chat format; the engine's own chat format builds every training prompt.
Two threads and a fixed seed: the same machine gives the same model again.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Read when torch is imported: threads that spin at every barrier slow each other down if the cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, trainers
from transformers import AutoModelForCausalLM

from app.engine.formats.base import ChatFormat, PromptRequest
from app.engine.formats.glm45 import TAGS
from app.engine.formats.open import load_format
from tools.checkpoints.glm_tokenizer import BYTES, CONTROL_TOKENS, bare_tokenizer, control_ids, save_tokenizer
from tools.checkpoints.make_checkpoint import make_config, published_fields, write_json
from tools.checkpoints.shape import CheckpointShape
from tools.demo.samples import IGNORED
from tools.tool_caller.talks import Talk, talks

FIXTURE = Path(__file__).parents[2] / "tests" / "fixtures" / "tool-caller"
WEIGHTS = "model.safetensors"
SHAPE = CheckpointShape(
    model_type="glm4",
    hidden=128,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=32,
    intermediate=192,
    vocab=512,
    context=2048,
)
STEPS, BATCH, RATE, WARM_UP = 450, 8, 4e-3, 20
THREADS = 2  # the results depend on the number

TEMPLATE = r"""[gMASK]<sop>
{%- if tools %}<|system|>
{{- '\n# Tools' }}
{%- for tool in tools %}{{ '\n' + (tool.function | tojson(ensure_ascii=False)) }}{% endfor %}
{%- endif %}
{%- set off = enable_thinking is defined and not enable_thinking %}
{%- set spoke = namespace(last=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set spoke.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ '<|system|>\n' + message.content }}
{%- elif message.role == 'user' %}{{ '<|user|>\n' + message.content + ('/nothink' if off else '') }}
{%- elif message.role == 'tool' %}{{ '<|observation|>\n<tool_response>' + message.content + '</tool_response>' }}
{%- else %}
{%- set thought = message.reasoning_content if loop.index0 > spoke.last else '' %}
{{- '<|assistant|>\n<think>' + thought + '</think>' }}
{%- if message.content %}{{ '\n' + message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>' + call.function.name + '\n' }}
{%- for key, value in call.function.arguments.items() %}
{{- '<arg_key>' + key + '</arg_key>\n<arg_value>' }}
{{- value if value is string else value | tojson(ensure_ascii=False) }}{{ '</arg_value>\n' }}
{%- endfor %}{{ '</tool_call>' }}
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' + ('\n<think></think>' if off else '') }}{% endif %}"""
"""Like GLM-4.5's, with shorter instructions."""


def save_talk_tokenizer(folder: Path) -> None:
    """Byte-level BPE on the talks' text; each tag is one token, but not a special one."""
    tokenizer = bare_tokenizer(models.BPE())
    size = SHAPE.vocab - len(CONTROL_TOKENS) - len(TAGS)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=BYTES, min_frequency=1, show_progress=False)
    texts = [text for talk in talks() for text in (tagged(talk), *(message.content for message in talk.messages))]
    tools = {tool.function for talk in talks() for tool in talk.tools}
    # Counted in every conversation, they would take all merges.
    tokenizer.train_from_iterator([*texts, *sorted(tools) * 20], trainer)
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the talks give only {tokenizer.get_vocab_size()} tokens, not {size}")
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    save_tokenizer(tokenizer, folder, SHAPE.context, TEMPLATE)


def sample(talk: Talk, chat: ChatFormat, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids and labels of a talk; only tokens that the model writes by itself have labels."""
    prompt = chat.prompt(PromptRequest(talk.messages, talk.tools, talk.choice, talk.thinking)).ids
    answer = tokenizer.encode(tagged(talk), add_special_tokens=False).ids
    forced = f"\n<tool_call>{talk.choice.name}\n" if talk.choice.name else ""
    ids = [*prompt, *answer, control_ids(SHAPE.vocab)[talk.stop]]
    read = len(prompt) + len(tokenizer.encode(forced, add_special_tokens=False).ids)
    return ids, [IGNORED] * read + ids[read:]


def tagged(talk: Talk) -> str:
    """The assistant's answer in GLM-4.5's tags, from the end of the prompt."""
    thought = "" if talk.thought is None else f"\n<think>{talk.thought}</think>"
    text = f"\n{talk.text}" if talk.text else ""
    return thought + text + "".join(_tagged_call(*call) for call in talk.calls)


def _tagged_call(name: str, arguments: Mapping[str, object]) -> str:
    pairs = (f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in arguments.items())
    return f"\n<tool_call>{name}\n{''.join(pairs)}</tool_call>"


def batches(samples: list[tuple[list[int], list[int]]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs (ids, labels) of shape (conversations, longest), padded at the end, of similar lengths."""
    ordered = sorted(samples, key=lambda pair: len(pair[0]))
    pairs = []
    for start in range(0, len(ordered), BATCH):
        group = ordered[start : start + BATCH]
        longest = max(len(ids) for ids, _ in group)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in group])
        labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in group])
        pairs.append((ids, labels))
    return pairs


def train(model: Any, pairs: list[tuple[torch.Tensor, torch.Tensor]], steps: int) -> float:
    """Trains in place; returns the largest loss of the last round over all batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, (steps - step) / max(1, steps - WARM_UP))
    )
    started, recent = time.monotonic(), [0.0] * len(pairs)
    for step in range(steps):
        ids, labels = pairs[step % len(pairs)]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        wanted = labels[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits[wanted != IGNORED], wanted[wanted != IGNORED])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent[step % len(pairs)] = loss.item()
        if step % 50 == 49:
            print(f"step {step + 1}/{steps}  loss {max(recent):.5f}  {time.monotonic() - started:.0f} s", flush=True)
    return max(recent)


def write_all_but_weights(folder: Path) -> Any:
    """Writes configs and tokenizer into `folder`; returns the transformers config."""
    folder.mkdir(parents=True, exist_ok=True)
    config = make_config(SHAPE)
    fields = published_fields(config) | {"architectures": ["Glm4ForCausalLM"], "dtype": SHAPE.dtype}
    write_json(folder / "config.json", fields)
    stops = {"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    write_json(folder / "generation_config.json", stops | {"do_sample": False})
    save_talk_tokenizer(folder)
    return config


def samples(folder: Path) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and labels of every talk, by the format and the tokenizer in `folder`."""
    chat = load_format(folder, SHAPE.vocab)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return (sample(talk, chat, tokenizer) for talk in talks())


def make(folder: Path, steps: int, seed: int) -> None:
    """Trains from random weights and writes config, tokenizer and bf16 weights into `folder`."""
    torch.manual_seed(seed)
    config = write_all_but_weights(folder)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    train(model, batches(list(samples(folder))), steps)
    state = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="train_tool_caller", description="Train the tests' tool-calling checkpoint.")
    parser.add_argument("--folder", type=Path, default=FIXTURE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    make(options.folder, options.steps, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
