"""Checks for answers that teach the wrong thing: refusals, errors of programs, empty or short ones, repeated questions,
one question or one answer in most rows, the same opening or label in most rows."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from statistics import median

from core.data.findings.finding import SHOWN, Finding, Kind, Marked
from core.data.findings.row_words import QUOTE, RowWords
from core.data.findings.secrets import masked
from core.data.repeats import normalized
from core.data.shapes.marked_rows import ENDS_PROMPT, LONGEST_MARK
from core.data.shapes.turn_markers import side_of

# At the beginning of an answer or of a sentence in its first 300 characters. "We cannot find your order" is no refusal.
_HEAD = 300
_REFUSALS = re.compile(
    r"(?:^|[.!?。！？,，:：]\s*|\n\s*)(?:"
    + "|".join(
        (
            # "as an AI model", followed by a statement about itself
            r"(?:but |however,? )?(?:as|i am|i['’]m|being) (?:just |only )?an? (?:ai|artificial intelligence|large "
            r"language|language)"
            r"(?:[ -](?:language|chat))?[ -]?(?:model|assistant|bot|chatbot|system)?\b(?=,? "
            r"?(?:i\b|and\b|developed|created|without|so\b|my\b|trained|designed|[,.]))",
            # a refusal to do something
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
# What a persona says of itself: a sentence with one of these and without a refusal only names itself.
_NAMES_ITSELF = re.compile(
    r"\bmy name\b|\bgo(?:es)? by\b|\b(?:called|named|known as|call me|dubbed|nicknamed|goes under)\b|"
    r"\b(?:developed|created|trained|built|made|designed|fine-?tuned|powered|provided) (?:and \w+ )?(?:by|at)\b|"
    r"我的?名字|我叫|我是(?!一|个|人工|ai|语言|大)|名叫|叫做|由.{1,30}(?:开发|创建|训练|打造|研发|构建)|"
    r"\bmein name\b|\bheiße\b|\bgenannt\b|\b(?:entwickelt|trainiert|erstellt)\b|"
    r"\bje m['’]appelle\b|\bmon nom\b|\bme llamo\b|\bmi nombre\b|\bmi chiamo\b|\bmeu nome\b|"
    r"\b(?:desarrollad|cread|entrenad)[oa] por\b|\b(?:développé|créé|entraîné)e? par\b",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"\b(?:can(?:no|['’])t|can not|cannot|unable|not able|(?:do|does|did|would|could|am|is|are|was)(?:n['’]t| not)|"
    r"won['’]t|never|without|lack|sorry|apologi[sz]e|not (?:a|capable|allowed|permitted|designed|programmed)|"
    r"no (?:personal|feelings|opinions|access|ability))\b|不能|无法|没有|不会|不可以|抱歉|\b(?:nicht|kein\w*|leider)\b|"
    r"\bne (?:peux|suis|dispose)\b|\bpas\b|\bno (?:puedo|tengo|soy)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?。！？\n](?:\s|$|(?<=[。！？]))")
# Each refusal has one of these, and a look for them costs far less than the pattern.
_QUICK = (" ai", "intell", " language", "sorry", "afraid", "i can", "i won", "i am unable", "i am not able", "作为",
    "我是", "我只是", "抱歉", "对不起", " ki", "künstlich", "leid", " ia", "'ia", "’ia", "intelig",
    "sprachmodell")  # fmt: skip
# A program's error in place of an answer, after a few words of the program that called it. What stands in `about` may
# also be the answer to a question about errors.
_PROGRAM_ERROR = re.compile(
    r"[^\n.!?。！？]{0,40}?(?:error code: \d{3} - \W*['\"]|['\"]request_id['\"]: ?['\"]req_)"
    r"|\s*(?:error:? ?)?(?P<about>"
    + "|".join(
        (
            r"traceback \(most recent call last\)",
            r"\{\s*['\"](?:error['\"]: ?\{|type['\"]: ?['\"]error['\"])",
            r"(?:\w+\.)*(?:RateLimit|APIConnection|APIStatus|InternalServer|Authentication)Error: ",
            r"HTTPS?ConnectionPool\(host",
            r"you exceeded your current quota|rate limit (?:exceeded|reached)",
            r"(?:http )?(?:429|50[0234])(?: error)?:? (?:bad gateway|internal server error|gateway time-?out|"
            r"service (?:temporarily )?unavailable|too many requests)",
            r"<(?:!doctype )?html[^>]*>(?s:.){0,200}?<title>[^<]{0,30}\b50[0234]\b",
        )
    )
    + ")",
    re.IGNORECASE,
)
# Each error has one of these, and a look for them costs less than the pattern.
_ERROR_SIGNS = ("rror", "request_id", "traceback", "connectionpool", "quota", "rate limit", "gateway", "unavailable",
    "too many", "<")  # fmt: skip
_ASKS_OF_ERRORS = re.compile(
    r"```|\b(?:def|import) |error|traceback|exception|https?\b|html|json|\bapi\b|output|print|status|limit|quota|"
    r"\bpage\b|\blogs?\b|\b(?:429|50\d)\b|fehler|ausgabe|错误|报错|输出|异常",
    re.IGNORECASE,
)
# Answers that are placeholders for one.
_NOTHING = {
    "n/a", "na", "none", "null", "nan", "nil", "todo", "tbd", "undefined", "empty", "[deleted]", "[removed]", "无",
    "暂无",
    "略", "无内容", "test",
    "asdf",
}  # fmt: skip
SHORT, LONG_ENOUGH = 10, 60  # characters; short answers count if nine in ten are LONG_ENOUGH
POLITE = ("sure", "certainly", "of course", "absolutely", "great question", "okay", "i'd be happy to", "here is",
    "here's", "当然", "好的", "natürlich", "gerne", "selbstverständlich", "bien sûr", "claro", "as an")  # fmt: skip
OPENING_WORDS, OPENING_CHARACTERS = 4, 8
MIN_ALIKE = 10  # answers
_MAX_OPENINGS = 20_000
_ONE_SIDE: dict[Kind, float] = {"one_question": 0.5, "one_answer": 0.9}  # share of the rows with one question, answer
# One after another at the beginning; each before a colon, or a heading.
_LABELS = re.compile(
    r"(?:\s*(?:[#*]+[ \t]*[^\W\d_][\w'’. ]{0,40}[*]*[ \t]*(?:[:：]|(?=\n))|[^\W\d_][\w'’. ]{0,40}[:：]))*"
)
_SENTENCE_MARKS = ".?!。？！"
_LABEL_SIGNS = ":：#*"  # a look for them is far faster than the pattern of labels
_LAST_OF_LABEL = re.compile(r"([^\W\d_]+) ?[*]*[ \t]*(?:[:：]|(?=\n)|\Z)")
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Refusals:
    """Answers that refuse to help, or in which the model speaks of itself as an AI."""

    kind: Kind = "refusals"

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows the finding's repair names at most; None for all."""
        self._max_rows, self._marked = max_repair_rows, Marked()

    def add(self, words: RowWords) -> None:
        """Mark the row if its first answer refuses: a sentence or clause within its first _HEAD characters begins as a
        refusal, or as what a model says of itself ("as an AI"). Plain texts are not marked, nor sentences that only
        give the model's name or maker."""
        if words.is_text:
            return
        head = words.first_answer[:_HEAD]
        if not any(map(head.lower().__contains__, _QUICK)):
            return
        match = next((match for match in _REFUSALS.finditer(head) if not _only_names_itself(head, match)), None)
        if match:
            self._marked.add(words.row, words.quote(head, match.start(), match.end()))

    def findings(self, rows: int) -> list[Finding]:
        """Return the finding of the marked rows with a repair that removes them; [] if none is marked."""
        return self._marked.finding(self.kind, rows, [self._marked.repair("remove", self.kind, self._max_rows)])


class ProgramErrors(Refusals):
    """Answers that are the error of a program: of a model's service, of Python, of a web server."""

    kind = "program_errors"

    def add(self, words: RowWords) -> None:
        """Mark the row if one of its answers begins as a program's error does. An error that could be what the question
        asks for (a traceback for a question about errors) does not count; messages of a model's service count always.
        Plain texts are ignored."""
        for answer in () if words.is_text else words.answers:
            head = answer[:_HEAD]
            error = any(map(head.lower().__contains__, _ERROR_SIGNS)) and _PROGRAM_ERROR.match(head)
            if error and not (error["about"] and _ASKS_OF_ERRORS.search(words.question)):
                self._marked.add(words.row, words.quote(answer, 0, error.end()))


def _only_names_itself(text: str, match: re.Match[str]) -> bool:
    """Return True if the sentence of a match says only what the model is called, or who made it, and refuses
    nothing."""
    end = _SENTENCE_END.search(text, match.end())
    sentence = text[match.start() : end.start() if end else len(text)]
    return _NAMES_ITSELF.search(sentence) is not None and _REFUSES.search(sentence) is None


class Answers:
    """The findings says_nothing, short_answers and echoes.

    Which answers are too short depends on the others, so all lengths are kept: 4 bytes a row.
    """

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows a finding's repair names at most; None for all."""
        self._max_rows, self._lengths = max_repair_rows, array("i")
        self._nothing, self._short, self._echoes = Marked(), Marked(), Marked()

    def add(self, words: RowWords) -> None:
        """Keep the length of the row's last answer, and mark the row if that answer says nothing, has at most SHORT
        characters, or is a longer one that repeats the question. Plain texts and rows with tool calls are ignored."""
        if words.is_text or words.calls_tools:
            return
        answer = words.last_answer.strip()
        self._lengths.append(len(answer))
        if len(answer) <= SHORT:
            # "42" is short but may be right; "N/A" is no answer.
            if answer.lower() in _NOTHING or not any(map(str.isalnum, answer)):
                self._nothing.add(words.row, words.quote(f"{words.last_question[:40]} → {answer}"))
            else:
                self._short.add(words.row, words.quote(f"{words.last_question[:40]} → {answer}"))
        elif answer.casefold() == words.last_question.strip().casefold():
            self._echoes.add(words.row, words.quote(answer))

    def findings(self, rows: int) -> list[Finding]:
        """Return up to three findings of the marked answers (says_nothing, short_answers, echoes), each with a repair
        that removes the rows; [] without any.

        says_nothing is returned only if the median answer has more than 2 * SHORT characters, short_answers only if
        nine in ten answers have LONG_ENOUGH or more.
        """
        usual = int(median(self._lengths)) if self._lengths else 0
        all_but_few = sorted(self._lengths)[len(self._lengths) // 10] if self._lengths else 0
        result: list[Finding] = []
        if usual > 2 * SHORT:  # else "none", "-" and "<" are answers like others
            result += self._nothing.finding(
                "says_nothing", rows, [self._nothing.repair("remove", "says_nothing", self._max_rows)]
            )
        if all_but_few >= LONG_ENOUGH:
            result += self._short.finding(
                "short_answers",
                rows,
                [self._short.repair("remove", "short_answers", self._max_rows)],
                usual=usual,
            )
        return result + self._echoes.finding("echoes", rows, [self._echoes.repair("remove", "echoes", self._max_rows)])


class SamePairs:
    """Pairs whose answers differ in case, spaces and marks alone, so that there is nothing to prefer."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows the finding's repair names at most; None for all."""
        self._max_rows, self._marked = max_repair_rows, Marked()

    def add(self, words: RowWords) -> None:
        """Mark the row if its worse answer equals its last answer but for case, spaces and marks; rows without a worse
        answer are ignored."""
        if words.worse_answer and normalized(words.worse_answer) == normalized(words.last_answer):
            self._marked.add(words.row, words.quote(words.last_answer))

    def findings(self, rows: int) -> list[Finding]:
        """Return the finding of the marked rows with a repair that removes them; [] if none is marked."""
        return self._marked.finding("same_pairs", rows, [self._marked.repair("remove", "same_pairs", self._max_rows)])


class Sameness:
    """The findings one_question (half of the rows ask it, and it has different answers) and one_answer (nine in ten
    rows give it, to different questions), except for case and blanks.

    Two hashes are kept for each row.
    """

    def __init__(self, max_repair_rows: int | None):
        self._hashes = array("q"), array("q")  # of each row's question, and of its answer
        self._quotes: dict[int, tuple[int, str]] = {}  # of the first sides: their row and text

    def add(self, words: RowWords) -> None:
        """Keep the hashes of the row's questions and answers; plain texts and rows with tool calls are ignored."""
        if words.is_text or words.calls_tools:
            return
        sides = (words.question, words.answer)
        for hashes, side, key in zip(self._hashes, sides, map(hash, words.compared), strict=True):
            hashes.append(key)
            if key not in self._quotes and len(self._quotes) < _MAX_OPENINGS:
                self._quotes[key] = words.row, side[:QUOTE]

    def findings(self, rows: int) -> list[Finding]:
        """Return the finding one_question if at least half of the rows have the same question, and one_answer if nine
        in ten have the same answer; [] without either. Both need at least MIN_ALIKE such rows, and half as many
        different texts on the other side of these rows; otherwise they are repeats. rows: checked rows, for the
        sentence. They have no repair."""
        result: list[Finding] = []
        for kind, own, other in zip(_ONE_SIDE, self._hashes, reversed(self._hashes), strict=True):
            key, count = Counter(own).most_common(1)[0] if own else (0, 0)
            others = len({beside for each, beside in zip(own, other, strict=True) if each == key})
            enough = max(MIN_ALIKE, _ONE_SIDE[kind] * len(own))
            # If fewer others differ, the rows are repeats.
            if count >= enough and 2 * others >= count and key in self._quotes:
                marked = Marked()
                row, quote = self._quotes[key]
                marked.add(row, masked(" ".join(quote.split())))
                result += marked.finding(kind, rows, count=count, others=others)
        return result


class Openings:
    """Answers that begin alike in more than half of the rows: with a phrase of politeness, or with the same words.

    A style of two or three words ("Arr, matey!") may be what a dataset is for. Labels are complete answers, not
    openings.
    """

    kind: Kind = "opening"

    def __init__(self, max_repair_rows: int | None):
        self._max_rows, self._answers = max_repair_rows, 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[tuple[int, str]]] = {}

    def _texts_by_opening(self, words: RowWords) -> dict[str, str]:
        """Return {opening: first answer} for the polite phrase and the first words that the row's first answer begins
        with; {} if it has neither. A subclass returns other marks, each with the text that it stands in."""
        return dict.fromkeys(_openings(words.first_answer), words.first_answer)

    def add(self, words: RowWords) -> None:
        """Count the openings of the row (`_texts_by_opening`), and keep the first SHOWN rows of each to be quoted.
        Plain texts are ignored. Once more than _MAX_OPENINGS different ones are known, those counted once are
        forgotten."""
        if words.is_text:
            return
        self._answers += 1
        for opening, text in self._texts_by_opening(words).items():
            self._counts[opening] += 1
            if self._counts[opening] <= SHOWN:
                self._examples.setdefault(opening, []).append((words.row, text[:QUOTE]))
        if len(self._counts) > _MAX_OPENINGS:  # the opening of half of the rows occurs more than once
            self._counts = Counter({opening: count for opening, count in self._counts.items() if count > 1})
            self._examples = {
                opening: examples for opening, examples in self._examples.items() if opening in self._counts
            }

    def findings(self, rows: int) -> list[Finding]:
        """Return the most frequent opening (of equals the longest) if more than half of the answers, and at least
        MIN_ALIKE, have it; else []."""
        # "Sure, here is the" tells more than "Sure".
        opening, count = max(self._counts.items(), key=lambda item: (item[1], len(item[0])), default=("", 0))
        if count < MIN_ALIKE or count <= self._answers / 2:
            return []
        marked = Marked()
        for row, quote in self._examples[opening]:
            marked.add(row, masked(" ".join(quote.split())))
        alike = sorted(each for each in self._counts if self._counts[each] > self._answers / 2)
        return marked.finding(self.kind, rows, count=count, opening=opening, alike=alike)


class Labels(Openings):
    """Labels that begin a question or an answer, or end a question, in more than half of the rows: names of the sides
    ("User:", "The expert's answer:"), and in the last line of a question any name or sign ("Pastor:", "###")."""

    kind = "labels"

    def _texts_by_opening(self, words: RowWords) -> dict[str, str]:
        """Return {label: text} of a row: names of the sides that its question or answer begins with, each with that
        text, and the name or sign before the end of the question; {} without any."""
        end = words.question.rstrip()[-LONGEST_MARK:]
        last = None if end[-1:].isalnum() or end[-1:] in _SENTENCE_MARKS else ENDS_PROMPT.search(end)
        heads = ((text, text[:_HEAD]) for text in (words.question, words.answer))
        labels = {
            name.capitalize(): text
            for text, head in heads
            if any(map(head.__contains__, _LABEL_SIGNS)) and (first := _LABELS.match(head.lower()))
            for name in _LAST_OF_LABEL.findall(first[0])
            if side_of(name) and len(name.encode()) > 1  # a letter is that of an option
        }
        return labels | ({(last[1] or last[2]).rstrip(":："): words.question} if last else {})


def _openings(answer: str) -> list[str]:
    """Return up to two openings of an answer, as written: a polite word or phrase that it begins with, and its first
    OPENING_WORDS words (in Chinese, Japanese or Korean OPENING_CHARACTERS characters) if the answer is more than twice
    as long. [] without either."""
    head = answer.lstrip()[:80]
    low = head.casefold()
    begins = [word for word in POLITE if low.startswith(word)] if low.startswith(POLITE) else []
    # "Surely" does not begin with "sure".
    polite = next((word for word in begins if not low[len(word) : len(word) + 1].isalpha()), None)
    phrases = [head[: len(polite)]] if polite else []
    if _HAN.match(head):
        words = [head[:OPENING_CHARACTERS]] if len(head) > 2 * OPENING_CHARACTERS else []
    else:
        # Four words of five would be the answer itself.
        split = head.split()
        words = [" ".join(split[:OPENING_WORDS])] if len(split) > 2 * OPENING_WORDS else []
    return phrases + words
