"""Answers that teach the wrong thing: refusals, empty ones, the question repeated, the same opening in most rows."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from statistics import median

from core.data.findings.finding import SHOWN, Finding, Marked
from core.data.findings.row_words import QUOTE, RowWords
from core.data.findings.secrets import masked
from core.data.repeats import plain

# At the beginning of an answer or of a sentence in its first 300 characters. A shop that cannot find an order does not
# refuse.
_HEAD = 300
_REFUSALS = re.compile(
    r"(?:^|[.!?。！？,，:：]\s*|\n\s*)(?:"
    + "|".join(
        (
            # what it says it is, followed by what it says of itself
            r"(?:but |however,? )?(?:as|i am|i['’]m|being) (?:just |only )?an? (?:ai|artificial intelligence|large "
            r"language|language)"
            r"(?:[ -](?:language|chat))?[ -]?(?:model|assistant|bot|chatbot|system)?\b(?=,? "
            r"?(?:i\b|and\b|developed|created|without|so\b|my\b|trained|designed|[,.]))",
            # what it will not do
            r"i(?:['’]m| am) (?:very |really |so )?(?:sorry|afraid),? (?:but )?(?:that )?i (?:can(?:['’]t|not)|am "
            r"unable to|['’]?m not able to|won['’]t)(?: be able to)? "
            r"(?:assist|help|fulfil+|comply|engage|participate|generate|create|produce|continue)(?: you)?(?: with "
            r"(?:that|this|your request|any|such)| in\b| any\b| such\b| that\b| this\b| content\b|[.,!])",
            (
                r"i (?:can(?:['’]t|not)|won['’]t|am unable to|am not able to) (?:assist|help|fulfil+|comply|engage)(?: "
                r"you)? (?:with|in) (?:that|this|your request|any|such|creating|writing)"
            ),
            r"作为(?:一个|一名|一款|一位)?(?:大型)?(?:ai|人工智能|语言模型|虚拟助手|大语言模型)(?:助手|语言模型|模型|程序)?[，,]\s*我",
            r"我(?:只是|是)(?:一个|一名|一款)?(?:ai|人工智能|大?语言模型)(?:助手|语言模型|模型|程序)?[，,]",
            r"(?:很?抱歉|对不起)[，,]?\s*(?:但)?我(?:不能|无法)(?:满足|提供(?:此|这|该)|协助|回答(?:这|该|此|您)|参与|生成|完成(?:这|该|此))",
            (
                r"als (?:eine? )?(?:großes? )?(?:ki|künstliche intelligenz|(?:ki-)?sprachmodell)\b(?:-\w+)?,? "
                r"(?:kann|habe|bin|ist|darf)"
            ),
            (
                r"(?:es )?tut mir (?:sehr )?leid, (?:aber )?(?:ich kann|dabei kann ich)(?: dir| ihnen)? (?:dabei "
                r"|damit "
                r"|bei dieser anfrage |diese anfrage |diese bitte )?nicht (?:helfen|erfüllen|nachkommen|weiterhelfen)"
            ),
            r"en tant qu['’](?:ia\b|intelligence artificielle|assistant ia|modèle de langage)",
            r"como (?:una? )?(?:modelo de lenguaje|ia,|inteligencia artificial,)",
        )
    )
    + ")",
    re.IGNORECASE,
)
_QUICK = ("ai", "language", "sorry", "afraid", "apologi", "i can", "unable", "作为", "我是", "我只是", "抱歉",
          "对不起", "ki",
    "künstlich", "leid", "ia", "intelig", "sprachmodell")  # fmt: skip
_NOTHING = {
    "n/a", "na", "none", "null", "nan", "nil", "todo", "tbd", "undefined", "empty", "[deleted]", "[removed]", "无",
    "暂无",
    "略", "无内容", "test",
    "asdf",
}  # fmt: skip
SHORT, LONG_ENOUGH = 10, 60  # characters: of an answer that is short, of what nine in ten have where it is so
POLITE = ("sure", "certainly", "of course", "absolutely", "great question", "okay", "i'd be happy to", "here is",
    "here's", "当然", "好的", "natürlich", "gerne", "selbstverständlich", "bien sûr", "claro", "as an")  # fmt: skip
OPENING_WORDS, OPENING_CHARACTERS = 4, 8
FEWEST_ALIKE = 10  # answers
_MOST_OPENINGS = 20_000
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Refusals:
    def __init__(self, most: int | None):
        self._most, self._marked = most, Marked()

    def add(self, said: RowWords) -> None:
        if said.is_text:
            return
        head = said.first_answer[:_HEAD]
        low = head.lower()
        if any(word in low for word in _QUICK) and (match := _REFUSALS.search(head)):
            self._marked.add(said.row, said.quote(head, match.start(), match.end()))

    def found(self, of: int) -> list[Finding]:
        return self._marked.finding("refusals", of, [self._marked.repair("remove", "refusals", self._most)])


class Answers:
    """says_nothing, short_answers, echoes. Which answers are too short depends on the others, so that their lengths are
    kept: 4 bytes a row."""

    def __init__(self, most: int | None):
        self._most, self._lengths = most, array("i")
        self._nothing, self._short, self._echoes = Marked(), Marked(), Marked()

    def add(self, said: RowWords) -> None:
        if said.is_text or said.calls_tools:
            return
        answer = said.last_answer.strip()
        self._lengths.append(len(answer))
        if len(answer) <= SHORT:
            if answer.lower() in _NOTHING or not any(map(str.isalnum, answer)):
                self._nothing.add(said.row, said.quote(f"{said.last_question[:40]} → {answer}"))
            else:
                self._short.add(said.row, said.quote(f"{said.last_question[:40]} → {answer}"))
        elif answer.casefold() == said.last_question.strip().casefold():
            self._echoes.add(said.row, said.quote(answer))

    def found(self, of: int) -> list[Finding]:
        usual = int(median(self._lengths)) if self._lengths else 0
        all_but_few = sorted(self._lengths)[len(self._lengths) // 10] if self._lengths else 0
        found: list[Finding] = []
        if usual > 2 * SHORT:  # else none, "-" and "<" are answers like others
            found += self._nothing.finding(
                "says_nothing", of, [self._nothing.repair("remove", "says_nothing", self._most)]
            )
        if all_but_few >= LONG_ENOUGH:
            found += self._short.finding(
                "short_answers", of, [self._short.repair("remove", "short_answers", self._most)], usual=usual
            )
        return found + self._echoes.finding("echoes", of, [self._echoes.repair("remove", "echoes", self._most)])


class SamePairs:
    """Pairs whose better and worse answer are the same but for case, spaces and marks: there is nothing to prefer."""

    def __init__(self, most: int | None):
        self._most, self._marked = most, Marked()

    def add(self, said: RowWords) -> None:
        if said.worse_answer and plain(said.worse_answer) == plain(said.last_answer):
            self._marked.add(said.row, said.quote(said.last_answer))

    def found(self, of: int) -> list[Finding]:
        return self._marked.finding("same_pairs", of, [self._marked.repair("remove", "same_pairs", self._most)])


class Openings:
    """Answers that begin alike in more than half of the rows: with a politeness, or word for word for some words.

    Two or three words of a voice of its own ("Arr, matey!") are what a set like that is for. Labels are whole answers,
    no beginnings."""

    def __init__(self, most: int | None):
        self._most, self._answers = most, 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[tuple[int, str]]] = {}

    def add(self, said: RowWords) -> None:
        if said.is_text:
            return
        self._answers += 1
        for opening in _openings(said.first_answer):
            self._counts[opening] += 1
            if self._counts[opening] <= SHOWN:
                self._examples.setdefault(opening, []).append((said.row, " ".join(said.first_answer[:QUOTE].split())))
        if len(self._counts) > _MOST_OPENINGS:  # what begins half of the rows is never among those that came once
            self._counts = Counter({opening: count for opening, count in self._counts.items() if count > 1})
            self._examples = {opening: seen for opening, seen in self._examples.items() if opening in self._counts}

    def found(self, of: int) -> list[Finding]:
        opening, count = max(self._counts.items(), key=lambda item: (item[1], len(item[0])), default=("", 0))
        if count < FEWEST_ALIKE or count <= self._answers / 2:
            return []
        marked = Marked()
        for row, quote in self._examples[opening]:
            marked.add(row, masked(quote))
        return marked.finding("opening", of, count=count, opening=opening)


def _openings(answer: str) -> list[str]:
    head = answer.lstrip()[:80]
    low = head.casefold()
    begins = [word for word in POLITE if low.startswith(word)] if low.startswith(POLITE) else []
    polite = next((word for word in begins if not low[len(word) : len(word) + 1].isalpha()), None)
    found = [head[: len(polite)]] if polite else []
    if _HAN.match(head):
        words = [head[:OPENING_CHARACTERS]] if len(head) > 2 * OPENING_CHARACTERS else []
    else:
        split = head.split()
        words = [" ".join(split[:OPENING_WORDS])] if len(split) > 2 * OPENING_WORDS else []
    return found + words
