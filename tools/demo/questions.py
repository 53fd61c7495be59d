"""The demo model's corpus, read from tools/demo/corpus: questions with answers, off-topic questions, phrasings."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

CORPUS = Path(__file__).with_name("corpus")
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Question:
    """A question of the corpus: `wordings` are trained, `held_out` are only used to check the model."""

    id: str
    language: str
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str


def parse_questions(text: str, language: str) -> Iterator[Question]:
    """Questions of a corpus file: `== id`, lines of `? wording` and `~ held-out wording`, then the answer."""
    for block in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        name, *lines = block.strip().splitlines()
        questions = [line for line in lines if line.startswith(("? ", "~ "))]
        wordings = tuple(line[2:] for line in questions if line.startswith("?"))
        held_out = tuple(line[2:] for line in questions if line.startswith("~"))
        yield Question(name, language, wordings, held_out, "\n".join(lines[len(questions) :]))


def load_questions() -> list[Question]:
    """All questions of both languages, in the order of the files."""
    files = [(language, CORPUS / f"{language}.txt") for language in LANGUAGES]
    return [question for language, file in files for question in parse_questions(file.read_text("utf-8"), language)]


class OffTopic:
    """Questions of one language that the model can't answer, drawn from templates, and its answer to them."""

    def __init__(self, language: str) -> None:
        entry: dict[str, Any] = json.loads((CORPUS / "off_topic.json").read_text("utf-8"))[language]
        self.answer: str = entry["answer"]
        self.templates: list[str] = entry["templates"]
        self.held_out: list[str] = entry["held_out"]
        self.fill: dict[str, list[str]] = entry["fill"]

    def draw(self, random: Random, templates: list[str] | None = None) -> str:
        """An off-topic question, from the trained templates unless others are passed."""
        template = random.choice(templates or self.templates)
        return re.sub(r"\{(\w+)\}", lambda slot: random.choice(self.fill[slot[1]]), template)

    def texts(self) -> list[str]:
        """Every piece of text, for the tokenizer."""
        return [self.answer, *self.templates, *(word for words in self.fill.values() for word in words)]


class Terms:
    """Terms of one language with the question that explains each, and templates that ask for a term."""

    def __init__(self, language: str) -> None:
        entry: dict[str, Any] = json.loads((CORPUS / "terms.json").read_text("utf-8"))[language]
        self.templates: list[str] = entry["templates"]
        self.terms: list[tuple[str, str]] = [(term, id_) for id_, terms in entry["terms"].items() for term in terms]

    def draw(self, random: Random) -> tuple[str, str]:
        """A question about some term, and the id of the corpus question whose answer explains it."""
        term, id_ = random.choice(self.terms)
        return random.choice(self.templates).format(term), id_


@dataclass(frozen=True)
class Phrasing:
    """Phrases around a question in one language, and system messages."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    end: tuple[str, ...]
    system: tuple[str, ...]


def load_phrasing(language: str) -> Phrasing:
    entry: dict[str, list[str]] = json.loads((CORPUS / "phrasing.json").read_text("utf-8"))[language]
    return Phrasing(**{name: tuple(texts) for name, texts in entry.items()})


def corpus_texts() -> list[str]:
    """All text that the model reads or writes, for training the tokenizer."""
    texts = [text for one in load_questions() for text in (*one.wordings, one.answer)]
    for language in LANGUAGES:
        phrasing = load_phrasing(language)
        terms = Terms(language)
        texts += [*OffTopic(language).texts(), *phrasing.before, *phrasing.after, *phrasing.system]
        texts += [*terms.templates, *(term for term, _ in terms.terms)]
    return texts
