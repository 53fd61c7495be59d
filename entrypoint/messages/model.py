"""Sentences of `entrypoint.reasons.model`. Each stands alone, with its full stop."""

from __future__ import annotations

from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons.model import DefaultModel, DemoByDefault, DemoInstead, ModelSet


@sentence.register
def _(reason: ModelSet) -> Sentence:
    return Sentence(f"Set by you: GLM_MODEL={reason.model}.", f"由你设置：GLM_MODEL={reason.model}。")


@sentence.register
def _(reason: DemoByDefault) -> Sentence:
    return Sentence(
        "GLM_MODEL is not set, so Berth serves its small demo model.",
        "没有设置 GLM_MODEL，所以使用 Berth 自带的小型演示模型。",
    )


@sentence.register
def _(reason: DefaultModel) -> Sentence:
    return Sentence(
        f"GLM_MODEL is not set, so the default is used: {reason.model}.",
        f"没有设置 GLM_MODEL，所以使用默认模型 {reason.model}。",
    )


@sentence.register
def _(reason: DemoInstead) -> Sentence:
    return Sentence(
        f"GLM_MODEL is not set, and its default, {reason.model}, can't be served now: {reason.why.en} "
        "So Berth serves its small demo model.",
        f"没有设置 GLM_MODEL，而默认模型 {reason.model} 目前无法使用：{reason.why.zh}"
        "因此使用 Berth 自带的小型演示模型。",
    )
