"""Writes what the table of settings says into README.md, docs/configuration.md and .env.example.

`python -m tools.settings_docs` rewrites the three files; a test fails if one of them differs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from entrypoint.settings.option import Option
from entrypoint.settings.settings import OPTIONS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / ".env.example"
WIDTH = 120
TABLE = re.compile(r"(<!-- settings: .*? -->\n).*?(<!-- settings: end -->\n)", re.DOTALL)
HEADER = "| setting | default | meaning |\n|---|---|---|\n"
PUBLIC: Mapping[str, Option] = {option.name: option for option in OPTIONS.values() if option.is_public}


def row(option: Option) -> str:
    """The setting's row of a Markdown table."""
    return f"| `{option.name}` | {_default(option)} | {option.help} |\n"


def with_table(page: str) -> str:
    """The page with its table renewed: the settings that it names, or all of them if it names none."""
    (match,) = TABLE.finditer(page)
    names = re.findall(r"^\| `(\w+)` \|", match[0], re.MULTILINE) if "rows" in match[1] else list(PUBLIC)
    table = HEADER + "".join(row(PUBLIC[name]) for name in names)
    return page[: match.start()] + match[1] + table + match[2] + page[match.end() :]


def block(option: Option) -> str:
    """The setting's lines of .env.example: what it means, and the line to uncomment."""
    meaning = option.help if option.help.startswith("`") else option.help[0].upper() + option.help[1:]
    if option.container_default:
        meaning += f". Default: {_default(option)}"
    comment = textwrap.wrap(f"{meaning.replace('`', '')}.", WIDTH - 2, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in comment) + f"#{option.name}={option.example}\n"


def with_blocks(example: str) -> str:
    """.env.example with the lines of each setting renewed; headings and other lines stay."""
    for option in PUBLIC.values():
        lines = re.compile(rf"(?:^# (?!---).*\n)*^#{option.name}=.*\n", re.MULTILINE)
        example, count = lines.subn(lambda _, option=option: block(option), example)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f".env.example has {count} lines for {option.name}")
    return example


def renewed() -> dict[Path, str]:
    """The three files as they should be."""
    pages = {path: with_table(path.read_text(encoding="utf-8")) for path in (README, CONFIGURATION)}
    return {**pages, EXAMPLE: with_blocks(EXAMPLE.read_text(encoding="utf-8"))}


def _default(option: Option) -> str:
    return "; ".join(filter(None, (option.default, option.container_default)))


if __name__ == "__main__":
    for path, text in renewed().items():
        path.write_text(text, encoding="utf-8")
