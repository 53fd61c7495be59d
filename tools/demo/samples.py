"""Training conversations for the demo model: questions reworded, several turns, system messages, off-topic talk."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer

from tools.checkpoints.glm_tokenizer import CONTROL_TOKENS
from tools.demo.questions import LANGUAGES, OffTopic, Phrasing, Question, Terms, load_phrasing, load_questions

IGNORED = -100  # the label of tokens that are read, not learnt
Turn = tuple[str, str]  # (question, answer)


def _typo(text: str, random: Random) -> str:
    """Drops, doubles or swaps one character."""
    at = random.randrange(max(1, len(text) - 1))
    pair = text[at : at + 2]
    return text[:at] + random.choice([pair[1:], pair[:1] + pair, pair[::-1]]) + text[at + 2 :]


def _without_word(text: str, random: Random) -> str:
    """Drops one word of a longer English question."""
    words = text.split(" ")
    if len(words) > 4:
        del words[random.randrange(len(words))]
    return " ".join(words)


def reworded(text: str, phrasing: Phrasing, random: Random) -> str:
    """The question as people vary it: case, punctuation, politeness, typing errors."""
    if random.random() < 0.6:
        text = text.rstrip("?？!.。") + random.choice(phrasing.end)
    if random.random() < 0.35:
        text = random.choice(phrasing.before) + (text[:1].lower() + text[1:] if random.random() < 0.5 else text)
    if random.random() < 0.2:
        text = text.rstrip("?？!.。") + random.choice(phrasing.after)
    if random.random() < 0.15:
        text = _without_word(text, random)
    if random.random() < 0.15:
        text = _typo(text, random)
    case = random.random()
    if case < 0.3:
        return text.lower()
    return text.upper() if case < 0.35 else text


@dataclass(frozen=True)
class Sample:
    """Token ids of one conversation, and labels of the assistant's tokens."""

    ids: list[int]
    labels: list[int]


class Sampler:
    """Draws conversations for ever; the same seed gives the same ones."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.random = Random(seed)
        vocab = tokenizer.get_vocab(with_added_tokens=True)
        self.control = {token: vocab[token] for token in CONTROL_TOKENS}
        self.questions = {name: [q for q in load_questions() if q.language == name] for name in LANGUAGES}
        self.off_topic = {name: OffTopic(name) for name in LANGUAGES}
        self.terms = {name: Terms(name) for name in LANGUAGES}
        self.held_out = {text for one in load_questions() for text in one.held_out}
        self.answers = {(one.language, one.id): one.answer for one in load_questions()}
        self.phrasing = {name: load_phrasing(name) for name in LANGUAGES}
        self.decks: dict[str, list[tuple[Question, str]]] = {name: [] for name in LANGUAGES}

    def _deal(self, language: str) -> tuple[Question, str]:
        """The next wording of a shuffled deck, so that all come equally often."""
        deck = self.decks[language]
        if not deck:
            deck.extend((question, text) for question in self.questions[language] for text in question.wordings)
            self.random.shuffle(deck)
        return deck.pop()

    def _ask(self, language: str) -> Turn:
        """A question as written in the corpus, or made from a template, with its answer."""
        kind = self.random.random()
        if kind < 0.12:
            off_topic = self.off_topic[language]
            return off_topic.draw(self.random), off_topic.answer
        if kind < 0.35:
            text, id_ = self.terms[language].draw(self.random)
            if text not in self.held_out:
                return text, self.answers[language, id_]
        question, text = self._deal(language)
        return text, question.answer

    def _turn(self, language: str) -> Turn:
        text, answer = self._ask(language)
        if self.random.random() < 0.6:
            text = reworded(text, self.phrasing[language], self.random)
        return text, answer

    def sample(self) -> Sample:
        """One conversation of one to six turns, mostly in one language, sometimes with a system message."""
        random = self.random
        language = random.choice(LANGUAGES)
        ids = [self.control["[gMASK]"], self.control["<sop>"]]
        if random.random() < 0.2:
            ids += self._segment("<|system|>", random.choice(self.phrasing[language].system))
        labels = [IGNORED] * len(ids)
        for turn in range(random.choices([1, 2, 3, 4, 5, 6], [50, 22, 12, 8, 5, 3])[0]):
            if random.random() < 0.1:
                language = random.choice(LANGUAGES)
            question, answer = self._turn(language)
            question_ids = self._segment("<|user|>", question) + self._segment("<|assistant|>", "")
            answer_ids = self._encode(answer)
            ids += question_ids + answer_ids
            # An answer ends with the token that opens the user's next turn, which is a stop id.
            first_label = IGNORED if turn == 0 else question_ids[0]
            labels += [first_label] + [IGNORED] * (len(question_ids) - 1) + answer_ids
        stop = self.control["<|user|>"]
        return Sample([*ids, stop], [*labels, stop])

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _segment(self, control: str, text: str) -> list[int]:
        """A control token and its text, with a newline between them as in the chat template."""
        return [self.control[control], *self._encode("\n" + text)]

    def batches(self, tokens: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs (ids, labels) of shape (conversations, longest), at most `tokens` each, of similar lengths."""
        while True:
            pool = sorted((self.sample() for _ in range(256)), key=lambda sample: len(sample.ids))
            groups: list[list[Sample]] = [[]]
            for sample in pool:
                if (len(groups[-1]) + 1) * len(sample.ids) > tokens:
                    groups.append([])
                groups[-1].append(sample)
            self.random.shuffle(groups)
            for group in groups:
                yield _padded([one.ids for one in group], 0), _padded([one.labels for one in group], IGNORED)


def _padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    """Rows padded on the right, where causal attention hides the padding."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])
