"""The table of settings: each field of `Settings` is one row, with its variable, parser, default and description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.contract.limits import LARGEST_MAX_NUM_SEQS
from app.contract.plan import Precision
from entrypoint.settings import access_parsers, parsers
from entrypoint.settings.option import option, options_of
from entrypoint.settings.parsers import OnRefusal, auto_or_count, count, flag

EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that stand for all of this machine's."""


class SettingsError(ValueError):
    """What is wrong with the settings, one line for each."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user set; None means that Berth chooses.

    docs/configuration.md and .env.example are held against these rows; `python -m tools.settings_docs` rewrites them.
    """

    model: str | None = option(
        "GLM_MODEL",
        str,
        None,
        "a hub id, a checkpoint folder, a name below `GLM_MODELS_DIR`, or `demo`; a model that you set is never "
        "replaced",
        default_text="`demo`",
        container_default="in the container `zai-org/chatglm3-6b`",
    )
    revision: str = option(
        "GLM_REVISION",
        parsers.revision,
        "main",
        "branch, tag or commit of a model from the hub",
        default_text="`main`",
    )
    hf_token: str | None = option(
        "HF_TOKEN",
        parsers.token,
        None,
        "for private and gated models; sent only to `HF_ENDPOINT`, and passed to no process but the download",
        default_text="none",
        example="hf_...",
        secret=True,
    )
    hf_endpoint: str = option(
        "HF_ENDPOINT",
        parsers.endpoint,
        "https://huggingface.co",
        "another hub or a mirror",
        default_text="`https://huggingface.co`",
    )
    hf_offline: bool = option(
        "HF_HUB_OFFLINE",
        parsers.hub_flag,
        False,
        "1 makes no request to a hub: the whole model must be in `HF_HOME`",
        default_text="0",
    )
    precision: Precision | None = option(
        "GLM_PRECISION",
        parsers.precision,
        None,
        "`auto`, `fp32`, `bf16`, `fp16`, `int8` or `int4`; a precision that you set and that doesn't fit is refused, "
        "with the line to change",
        default_text="`auto`",
    )
    max_model_len: int | None = option(
        "GLM_MAX_MODEL_LEN",
        auto_or_count(16),
        None,
        "context in tokens, for prompt and answer together; `auto` takes 8192 and more if memory is left, on a CPU "
        "only as long as the cache is no larger than the weights",
        default_text="`auto`",
    )
    max_num_seqs: int | None = option(
        "GLM_MAX_NUM_SEQS",
        auto_or_count(1, LARGEST_MAX_NUM_SEQS),
        None,
        "requests that run at once, up to 64; `auto` takes as many as fit, at most 16, or 4 on a CPU; a number that "
        "you set and that doesn't fit is refused, with the line to change",
        default_text="`auto`",
    )
    bind: str = option(
        "GLM_BIND",
        access_parsers.address,
        "127.0.0.1",
        "the address where the service is published; 0.0.0.0 lets other machines reach it",
        section="Address",
    )
    port: int = option(
        "GLM_PORT",
        count(1, 65535),
        8000,
        "the port where the service is published; outside Compose, `PORT` is used if `GLM_PORT` is unset",
        section="Address",
        fallback="PORT",
    )
    api_key: str | None = option(
        "GLM_API_KEY",
        access_parsers.key,
        None,
        "the key for page and API, 16 to 512 printable characters; with the one that Berth makes, the log "
        "prints a link to sign in",
        default_text="made at the first start",
        example="a-long-word-nobody-guesses",
        section="Access",
        secret=True,
    )
    """None if Berth makes one; the content of GLM_API_KEY_FILE counts as this."""
    key_in_file: str | None = option(
        "GLM_API_KEY_FILE",
        access_parsers.key_in,
        None,
        "a file that holds the key, such as a Docker secret; in Docker a path inside the container; set this or "
        "`GLM_API_KEY`, not both",
        default_text="none",
        example="/run/secrets/berth_key",
        section="Access",
        show=False,
    )
    auth: bool = option(
        "GLM_AUTH",
        access_parsers.auth,
        True,
        "`off` asks for no key; allowed only if `GLM_BIND` is a loopback address",
        default_text="`on`",
        section="Access",
    )
    trusted_proxies: int = option(
        "GLM_TRUSTED_PROXIES",
        count(0, access_parsers.MOST_PROXIES),
        0,
        "how many reverse proxies in front of Berth are trusted to say who asks (`X-Forwarded-For` and similar "
        "headers)",
        section="Access",
    )
    """So many proxies may say where a request comes from."""
    state_dir: Path = option(
        "GLM_STATE_DIR",
        Path,
        Path(".berth"),
        "app config, key, conversations and ledger; Compose ignores it",
        default_text="`.berth`",
        container_default="in the container `/data`",
        section="Folders",
    )
    hf_home: Path = option(
        "HF_HOME",
        Path,
        Path.home() / ".cache" / "huggingface",
        "downloaded weights, in huggingface_hub's layout; Compose ignores it",
        default_text="`~/.cache/huggingface`",
        container_default="in the container `/models`",
        section="Folders",
    )
    models_dir: Path | None = option(
        "GLM_MODELS_DIR",
        Path,
        None,
        "a folder of models on the host; Compose mounts it read-only",
        default_text="none",
        example="/srv/models",
        section="Folders",
    )
    require_gpu: bool = option(
        "GLM_REQUIRE_GPU",
        flag,
        False,
        "1 refuses to run without a GPU",
        default_text="0",
        container_default="with `docker/compose.gpu.yaml` 1",
        section="Behaviour",
    )
    on_refusal: OnRefusal = option(
        "GLM_ON_REFUSAL",
        parsers.on_refusal,
        "wait",
        "if nothing fits: `wait` keeps the page up to explain why, `exit` ends with code 3",
        default_text="`wait`",
        section="Behaviour",
    )
    drain_seconds: int = option(
        "GLM_DRAIN_SECONDS",
        count(0, 3600),
        20,
        "how many seconds running answers may go on when the service stops; Docker waits 30 in total",
        section="Behaviour",
    )
    request_seconds: int = option(
        "GLM_REQUEST_SECONDS",
        count(0, 86400),
        600,
        "how many seconds a request may wait and run; then it ends with an error and keeps what was generated; 0 is no "
        "limit",
        section="Behaviour",
    )
    published_bind: str = option("BERTH_PUBLISHED_BIND", access_parsers.published, "127.0.0.1")
    """The address by which others reach the service; in a container it is not the one that it binds."""
    published_port: int = option("BERTH_PUBLISHED_PORT", count(1, 65535), 8000)
    default_model: str | None = option("BERTH_DEFAULT_MODEL", str, None)
    """Hub id that the image serves if GLM_MODEL is unset; outside of the image it is the demo model."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What child processes inherit."""


OPTIONS = options_of(Settings)
SETTING_NAMES = tuple(option.name for option in OPTIONS.values() if option.is_public)
"""Every setting that users have."""
SECRETS = tuple(option.name for option in OPTIONS.values() if option.secret)


def address(settings: Settings) -> str:
    """The address to open in a browser on this machine."""
    host = "127.0.0.1" if settings.published_bind in EVERYWHERE else settings.published_bind
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.published_port}"
