"""Sentences about folders and checkpoint files."""

from __future__ import annotations

from entrypoint.messages.sentence import Sentence, sentence
from entrypoint.reasons.files import InvalidCheckpoint, InvalidSetting, MakeWritable, NotWritable


@sentence.register
def _(reason: NotWritable) -> Sentence:
    owner, owner_zh = reason.owner or "an unknown user", reason.owner or "未知用户"
    return Sentence(
        f"{reason.folder} can't be written ({reason.error}): {reason.parent} belongs to {owner} "
        f"(uid {reason.owner_uid}), Berth runs as uid {reason.uid}.",
        f"{reason.folder} 无法写入（{reason.error}）：{reason.parent} 属于 {owner_zh}（uid {reason.owner_uid}），"
        f"Berth 以 uid {reason.uid} 运行。",
    )


@sentence.register
def _(reason: MakeWritable) -> Sentence:
    return Sentence(
        f"Run `chown -R {reason.uid} {reason.parent}` on the host, or set {reason.setting} to a directory that "
        f"uid {reason.uid} can write.",
        f"请在主机上运行 `chown -R {reason.uid} {reason.parent}`，或把 {reason.setting} 设为 "
        f"uid {reason.uid} 可写的目录。",
    )


@sentence.register
def _(reason: InvalidCheckpoint) -> Sentence:
    return Sentence(reason.error, f"模型文件无法使用：{reason.error}")


@sentence.register
def _(reason: InvalidSetting) -> Sentence:
    return Sentence(reason.error, f"设置有误：{reason.error}")
