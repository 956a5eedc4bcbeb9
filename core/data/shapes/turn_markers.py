"""Conversations written into one text, with the turn markers of a chat template or with names of the sides.

templates    <|im_start|>user, <|start_header_id|>user<|end_header_id|>, <start_of_turn>user, <|user|>, [INST] [/INST]
headings     ### Human: ... ### Assistant: ..., ### Instruction: ... ### Response: ...
names        User: ... Assistant: ..., **Q:** ... **A:** ..., <human>: ... <bot>: ...
lines        **User** ... **Claude** ..., ## You ... ## ChatGPT ...

A marker of a template counts only at the beginning, or after the token that ends a turn if the text has such tokens: an
answer may be about markers. Of headings and names only the first of each side count. A text before the first marker is
the system turn, or stands before a first question (`Q:`, `Question:`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from statistics import median
from typing import Protocol

from core.data.shapes.left_out import Omission
from core.data.shapes.speakers import ROLES, Role

Turn = dict[str, str]
LOOKED_AT = 1 << 16  # characters of a text file
BLOCK = 1_600  # characters of a row, some 400 tokens, if nothing says where a conversation ends
_LONGEST_TURN = 8_000  # characters of a turn, on average, in a text file that names the sides
LARGEST_BLOCK = 1 << 20  # characters

_FRAME = (
    r"</?s>|<[be]os>|<\|(?:begin_of|end_of_)_?text\|>|<\|endoftext\|>|<｜(?:begin|end)▁of▁sentence｜>|<[BE]OS_TOKEN>"
)
_BEGINS = re.compile(rf"(?:\s|{_FRAME})*")
_END = re.compile(
    rf"(?:{_FRAME}|<\|im_end\|>|<\|eo[tm]_id\|>|<end_of_turn>|<\|end\|>|<\|return\|>|<\|END_OF_TURN_TOKEN\|>)\Z"
)
_LONGEST_END = 40  # characters
# Of each template: the marker of a turn, and the token that ends every turn.
_TEMPLATES = (
    (r"<\|im_start\|>[ \t]*(?P<role>\w+)[^\n<]*\n?", r"<\|im_end\|>"),
    (r"<\|start_header_id\|>[ \t]*(?P<role>\w+)[ \t]*<\|end_header_id\|>", r"<\|eo[tm]_id\|>"),
    (r"<start_of_turn>[ \t]*(?P<role>\w+)\n?", r"<end_of_turn>"),
    (r"<\|start\|>(?P<role>\w+)(?:<\|channel\|>final)?<\|message\|>", r"<\|(?:end|return)\|>"),
    (r"<\|START_OF_TURN_TOKEN\|><\|(?P<role>\w+)_TOKEN\|>", r"<\|END_OF_TURN_TOKEN\|>"),
    (r"<\|(?P<role>system|user|assistant|human|bot|observation)\|>\n?", ""),
    (r"<｜(?P<role>User|Assistant)｜>", ""),
)
_SYSTEM_TEXT = re.compile(r"\s*(?:<<SYS>>(.*?)<</SYS>>|\[SYSTEM_PROMPT\](.*?)\[/SYSTEM_PROMPT\])\s*", re.DOTALL)

# Names of the sides before a colon, letters among them; speakers.py has those in a field.
# English, German, Spanish, French, Italian, Portuguese, Russian, Chinese, Japanese, Korean.
_ASKS = """
    human user question q instruction instruct prompt customer client query student frage f nutzer benutzer anweisung
    kunde
    kullanıcı soru gebruiker vraag użytkownik pytanie pengguna pertanyaan utilizador utilizator întrebare uživatel
    användare fråga felhasználó kérdés користувач питання کاربر سوال المستخدم مستخدم سؤال उपयोगकर्ता प्रश्न ผู้ใช้ คำถาม
    pregunta p usuario cliente instrucción utilisateur domanda utente pergunta usuário вопрос пользователь 用户 问题 问
    提问 指令 人类 質問 ユーザー 질문 사용자"""
_ANSWERS = """
    assistant ai bot chatbot gpt chatgpt response answer a output completion agent support model reply claude antwort
    asistan cevap antwoord asystent odpowiedź asisten jawaban răspuns odpověď svar asszisztens válasz асистент
    відповідь دستیار پاسخ المساعد مساعد جواب सहायक उत्तर ผู้ช่วย คำตอบ
    assistent antworten respuesta r asistente réponse assistente risposta resposta ответ ассистент 助手 回答
    答 回复 答案 応答 アシスタント 답변 어시스턴트"""
_MORE = "input 输入 eingabe entrada"  # of the side that asks
# Only where they fill a line: a person, and programs that answer.
_WRITER, _PROGRAMS = "you me ich du 我 你", "cursor copilot gemini grok deepseek perplexity mistral llama"
_SYSTEM = "system 系统 システム 시스템"
_QUESTION = "q question f frage p pregunta domanda pergunta вопрос 问 问题 提问 質問 질문"
_ALONE = f"instruction instruct {_QUESTION}"  # no talk goes on
_LETTERS = frozenset("qafpr")
_NAMES = "|".join(sorted(map(re.escape, f"{_ASKS} {_ANSWERS} {_MORE} {_SYSTEM}".split()), key=len, reverse=True))
_NUMBER = r"(?:[ \t]*\d+)?[ \t]*"  # never two runs of blanks side by side, which take quadratic time
_NAMED = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"#{{2,4}}[ \t]*(?P<name>{_NAMES}){_NUMBER}[:：][ \t]*"
        rf"|^[ \t]*#{{2,4}}[ \t]*(?P<heading>{_NAMES}){_NUMBER}$",
        rf"^[ \t]*\*\*(?P<name>{_NAMES}){_NUMBER}(?:[:：]\*\*|\*\*[ \t]*[:：])[ \t]*",
        rf"^[ \t]*[<\[](?P<name>{_NAMES})[>\]][ \t]*[:：][ \t]*",
        rf"^[ \t]*(?P<name>{_NAMES}){_NUMBER}[:：][ \t]*",
    )
) + (re.compile(r"(?:^|(?<=\s)|(?<=</s>))(?P<name>USER|HUMAN|SYSTEM|ASSISTANT|AI)[ \t]*:[ \t]*"),)  # Vicuna, in a line
_LINE_NAMES = "|".join(
    f"human user nutzer benutzer 用户 usuario usuário utilisateur kullanıcı пользователь کاربر المستخدم ユーザー"
    f" pengguna 사용자 asistente assistente asistan asisten ассистент دستیار المساعد 助手 アシスタント 어시스턴트"
    f" {_WRITER} assistant ai bot chatbot chatgpt claude {_PROGRAMS}".split()
)
# A heading or a line in bold of nothing but a name, as programs export talks, mostly below a ruler.
_IN_LINES = re.compile(
    r"^(?:-{3,}[ \t]*\n\s*)?(?:#{1,6}[ \t]+(?:_?\*\*)?|_?\*\*)(?:[^\w\s*#]{1,4}[ \t]+)?"
    rf"(?P<name>{_LINE_NAMES})(?:[ \t]said)?"
    r"(?:[ \t]\([^()\n]{1,60}\))?[:：]?(?:\*\*_?)?[:：]?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_MIN_IN_LINES = 4  # turns of a file
# What a call of a tool leaves in an answer: the word None, and the result of the tool.
_LOST = re.compile(r"\A(?:None|null)?\s*^(?:tool|function|observation)[ \t]*:.*\Z|^tool:.*", re.MULTILINE | re.DOTALL)
# A name of a side, and further names before colons, with nothing after them.
_LABELS = re.compile(r"[\s*#]*([^\W\d_]+(?: [^\W\d_]+)*)[ \t*]*[:：][\s*]*(?:[^\W\d_][\w'’. ]*[*]*[ \t]*[:：][\s*#]*)*")
LABEL_ENDS = " \t\n*#:："  # characters
# What describes a file: front matter between rulers; headings, comments and facts before the first turn.
_FRONT = re.compile(r"\s*---[ \t]*\n(?:[\w\"'][\w\"'-]*[ \t]*:.*\n|[ \t]+\S.*\n|[-#].*\n|[ \t]*\n)*?---[ \t]*(?:\n|$)")
_TITLES = re.compile(
    r"(?:\s*+(?:#{1,6} [^\n]*+|<!--(?:(?!-->).)*+-->|-{3,}+|[*_-]{0,4}[^\W\d_][\w ]{0,25}[*_]{0,2}:[^\n]*+))*+\s*",
    re.DOTALL,
)
_OPTION = re.compile(r"^[ \t]*B[ \t]*[:.)]", re.MULTILINE)  # then A: is a choice
_PREAMBLE = re.compile(r"Below is an instruction|A chat between|The following is a conversation")
_RULER = re.compile(r"[ \t]*(?:-{3,}|={3,}|\*{3,}|_{3,}|<\|endoftext\|>|%)[ \t]*$")
END_OF_FORTUNE = "%\n"  # a line between the texts of a fortune file


@lru_cache(maxsize=512)
def side_of(name: str) -> Role | None:
    """Return the side that a name before a colon, in small letters, means; None for any other word."""
    sides: tuple[tuple[Role, str], ...] = (
        ("system", _SYSTEM), ("assistant", f"{_ANSWERS} {_PROGRAMS}"),
        ("user", f"{_ASKS} {_MORE} {_WRITER}"),
    )  # fmt: skip
    return next((side for side, names in sides if name in names.split()), None)


def turns_in(text: str) -> list[Turn] | None:
    """Return the turns of a conversation that is written into a text with markers; None for any other text. A
    conversation has a question and the marker of an answer, which may be empty. It may begin with a greeting of the
    side that answers."""
    body = text[_begin(text) :]
    return next((turns for style in _styles_for(body) if (turns := _complete(style.turns(body)))), None)


def is_label_alone(text: str) -> bool:
    """Return True if a text is nothing but labels with colons, of which the first names the side that asks, such as
    "User:" or "User: **Question:**". False for more than 120 characters."""
    if len(text) > 120 or not text.rstrip(LABEL_ENDS[:-2]).endswith((":", "：")):  # far faster than the pattern
        return False
    labels = _LABELS.fullmatch(text)
    return labels is not None and all(side_of(name) == "user" for name in labels[1].lower().split())


def after_greeting(turns: list[Turn]) -> tuple[list[Turn], tuple[Omission, ...]]:
    """Return the turns from the first question on, those of one side joined, and omissions: answers before it, and
    calls of tools that only the word None is left of."""
    kept: list[Turn] = []
    omissions: list[Omission] = []
    for turn in turns:
        omissions += [Omission("chat", "call")] if "lost" in turn else []
        turn = {"role": turn["role"], "content": turn["content"]}
        if turn["role"] == "assistant" and not kept:
            omissions.append(Omission("chat", "unasked"))
        elif kept and kept[-1]["role"] == turn["role"]:  # only a call stood between them
            kept[-1]["content"] += f"\n{turn['content']}"
        else:
            kept.append(turn)
    return kept, tuple(omissions)


def _begin(text: str) -> int:
    """Return where a text begins after blanks and tokens such as <s>."""
    match = _BEGINS.match(text)
    return match.end() if match else 0


def _complete(turns: list[Turn]) -> list[Turn]:
    """Return the turns of a conversation, without an empty last answer after others; [] unless a question has an answer
    after it."""
    roles = [turn["role"] for turn in turns]
    if "user" not in roles or "assistant" not in roles[roles.index("user") :]:
        return []
    return (
        turns[:-1] if roles[-1] == "assistant" and not turns[-1]["content"] and roles.count("assistant") > 1 else turns
    )


def _clean(text: str) -> str:
    """Return the text of a turn without blanks around it and without the tokens that end a turn."""
    text = text.strip()
    while end := _END.search(text, max(0, len(text) - _LONGEST_END)):
        text = text[: end.start()].rstrip()
    return text


class _Style(Protocol):
    """A way in which a text marks the turns of a conversation: by a chat template's markers, by [INST], or by names of
    the sides."""

    def turns(self, text: str) -> list[Turn]:
        """Return the turns of a text, [] if it does not begin with a marker."""

    def sides(self, line: str) -> list[Role]:
        """Return the sides whose turns begin in a line."""


class _Template:
    """Turns by the markers of a chat template. start, end: patterns; end "" if nothing ends a turn."""

    def __init__(self, start: str, end: str):
        self._start, self._end = re.compile(start), re.compile(end) if end else None
        self._ended = re.compile(rf"(?:{end})(?:\s|{_FRAME})*\Z") if end else None

    def turns(self, text: str) -> list[Turn]:
        """Return the turns of a text with a template's markers; [] if it does not begin with one, or a role is
        unknown."""
        if not self._start.match(text):
            return []
        marks = [mark for mark in self._start.finditer(text) if self._is_turn(text, mark.start())]
        turns = []
        for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)], strict=True):
            role = ROLES.get(mark["role"].lower())
            if role is None:
                return []
            # Up to the last end token: an answer may quote one.
            content = text[mark.end() : end]
            ends = [*self._end.finditer(content)] if self._end else []
            turns.append({"role": role, "content": _clean(content[: ends[-1].start()] if ends else content)})
        return turns

    def _is_turn(self, text: str, at: int) -> bool:
        """Return True if the marker at position `at` begins a turn and is not quoted in an answer. It must follow the
        token that ends a turn; if the text has no such token, it must begin a line. Always True at 0, and for templates
        that end no turn."""
        if at == 0 or self._ended is None:
            return True
        if self._end and self._end.search(text):
            return self._ended.search(text, max(0, at - 200), at) is not None
        return text[at - 1] == "\n"

    def sides(self, line: str) -> list[Role]:
        """Return the roles of the template's markers in a line, in their order; "tool" for an unknown role."""
        return [ROLES.get(mark["role"].lower(), "tool") for mark in self._start.finditer(line)]


class _Inst:
    """Turns in [INST] and [/INST], as Llama 2 and Mistral write them."""

    def turns(self, text: str) -> list[Turn]:
        """Return the turns of a text in Llama 2's or Mistral's notation; [] if it does not begin with it, or a question
        is not closed."""
        first = _SYSTEM_TEXT.match(text)
        body = text[first.end() :] if first else text
        if not body.startswith("[INST]"):
            return []
        before = r"(?:\A|</s>)(?:\s|<s>)*" if "</s>" in body else ""  # an answer may be about [INST]
        turns: list[Turn] = []
        for part in re.split(rf"{before}\[INST\]", body)[1:]:
            question, closing, answer = part.partition("[/INST]")
            if not closing:
                return []
            inside = None if turns else _SYSTEM_TEXT.match(question)
            question = question[inside.end() :] if inside else question
            if not turns and (system := first or inside):
                turns.append({"role": "system", "content": (system[1] or system[2] or "").strip()})
            turns += [{"role": "user", "content": question.strip()}, {"role": "assistant", "content": _clean(answer)}]
        return turns

    def sides(self, line: str) -> list[Role]:
        """Return the side of each [INST] (user) and [/INST] (assistant) in a line, in their order."""
        sides: dict[str, Role] = {"<<SYS>>": "user", "[INST]": "user", "[/INST]": "assistant"}
        return [sides[mark] for mark in re.findall(r"\[/?INST\]", line)]


@dataclass(frozen=True)
class _Named:
    """Sides by their names. names: those that count; none: the first of each side in a text."""

    pattern: re.Pattern[str]
    names: frozenset[str] = frozenset()

    def named_in(self, text: str) -> _Named | None:
        """Return this style with the names of a text, None if a side has none there."""
        names = [name for _, name in self._marks(text)]
        asks = next((name for name in names if side_of(name) == "user" and name not in _MORE.split()), None)
        answers = next((name for name in names if side_of(name) == "assistant"), None)
        # Q goes with A, not with Assistant.
        if asks is None or answers is None or (asks in _LETTERS) != (answers in _LETTERS):
            return None
        if answers in _LETTERS and _OPTION.search(text):
            return None
        return _Named(self.pattern, frozenset([asks, answers, *_MORE.split(), *_SYSTEM.split()]))

    def _marks(self, text: str) -> Iterator[tuple[re.Match[str], str]]:
        """Yield the matches of names that count, each with its name in small letters."""
        for mark in self.pattern.finditer(text):
            name = (mark["name"] or mark.groupdict().get("heading") or "").lower()
            if not self.names or name in self.names:
                yield mark, name

    def begin(self, text: str) -> int:
        """Return where the first name stands; the length of the text without one."""
        return next((mark.start() for mark, _ in self._marks(text)), len(text))

    @property
    def asks_alone(self) -> bool:
        """Return True if the names are of exercises (instruction, question), so that each question begins a
        conversation of its own."""
        return not self.names.isdisjoint(_ALONE.split())

    def turns(self, text: str) -> list[Turn]:
        """Return the turns of a text with names before them; [] if names do not mark both sides, or an answer comes
        first, unless it is a greeting. Text before the first name is a system message or belongs to the question."""
        if not self.names:
            named = self.named_in(text)
            return named.turns(text) if named else []
        turns: list[Turn] = []
        begin, before, joint = 0, "", "\n"
        for mark, name in self._marks(text):
            side, current = side_of(name) or "user", turns[-1]["role"] if turns else None
            # Not a turn: an input that follows no question, or a system prompt in the middle, is text of the turn
            # before.
            if (name in _MORE.split() and current != "user") or (side == "system" and turns):
                continue
            before = self._end_turn(turns, text[begin : mark.start()], before, joint)
            begin, joint = mark.end(), "\n\n" if name in _MORE.split() else "\n"
            turns.append({"role": side, "content": ""})
        self._end_turn(turns, text[begin:], before, joint)
        is_system = self.names.isdisjoint(_QUESTION.split()) or _PREAMBLE.match(before)
        if before and turns[0]["role"] == "user" and is_system:
            turns.insert(0, {"role": "system", "content": before})
        elif before:
            turns[0]["content"] = f"{before}\n\n{turns[0]['content']}"
        is_greeting = len(turns) > 1 and not self.asks_alone and self.names.isdisjoint(_LETTERS)
        return turns if turns[0]["role"] != "assistant" or is_greeting else []

    def _end_turn(self, turns: list[Turn], text: str, before: str, joint: str) -> str:
        """Write a turn's text into the last of turns, marking a lost call of a tool, and join that with one of the same
        side by joint. Return the text before all turns: text if there are none yet, else before."""
        if not turns:
            return _clean(text)
        turns[-1]["content"] = _clean(text)
        if turns[-1]["role"] == "assistant" and (kept := _clean(_LOST.sub("", turns[-1]["content"]))) != _clean(text):
            turns[-1] |= {"content": kept, "lost": "call"}
            # An answer that was only a call is left out.
            if not kept and len(turns) > 1 and turns[-2]["role"] == "user":
                turns.pop()
                turns[-1]["lost"] = "call"
        if len(turns) > 1 and turns[-2]["role"] == turns[-1]["role"]:
            last = turns.pop()
            turns[-1] |= {"lost": "call"} if "lost" in last else {}
            turns[-1]["content"] = joint.join(filter(None, (turns[-1]["content"], last["content"])))
        return before

    def sides(self, line: str) -> list[Role]:
        """Return the side of each name before a turn in a line, in their order; names that do not count are skipped."""
        return [side for _, name in self._marks(line) if (side := side_of(name))]


# Templates before names, which other texts have too.
_NAMED_STYLES, _LINES = (*map(_Named, _NAMED),), _Named(_IN_LINES)
_STYLES: tuple[_Style, ...] = (_Inst(), *(_Template(*each) for each in _TEMPLATES), *_NAMED_STYLES)


def _styles_for(text: str) -> tuple[_Style, ...]:
    """Return the styles to try, in order. Names in lines of their own come first if they begin the text: other names
    then stand in what somebody says."""
    if (lines := _LINES.named_in(text)) is None:
        return _STYLES
    others = (named.begin(text) for style in _NAMED_STYLES if (named := style.named_in(text)))
    return (_LINES, *_STYLES) if lines.begin(text) < min(others, default=inf) else (*_STYLES, _LINES)


# --- text files ------------------------------------------------------------------------------------------------------
def style_of_file(head: str) -> _Style | None:
    """Return how a text file marks the turns of conversations; None for any other text, and for names in prose. head:
    its beginning."""
    first = _begin(head)
    for style in _styles_for(head):
        named = style.named_in(head) if isinstance(style, _Named) else style
        turns = _complete(named.turns(head[first:])) if named else []
        if style is _LINES and len(turns) < _MIN_IN_LINES:
            continue
        if turns and isinstance(named, _Named):
            # a novel with an interview in it is no conversation
            is_prose = len(head) > _LONGEST_TURN * len(turns) or len(turns[0]["content"]) > _LONGEST_TURN
            return None if is_prose or named.begin(head) > len(head) / 3 else named
        if turns:
            return named
    return None


def after_front(head: str, style: _Style) -> int:
    """Return where a text file begins after front matter, and after a heading and what else describes it before its
    first turn."""
    front = _FRONT.match(head)
    end = front.end() if front and not turns_in(front[0]) else 0  # not rulers around a conversation
    rest = head[end:]
    named = style.named_in(rest) if isinstance(style, _Named) else None
    begins = named.begin(rest) if named else 0
    return end + (begins if _TITLES.fullmatch(rest[:begins]) and (end or "#" in rest[:begins]) else 0)


def conversations(lines: Iterable[str], style: _Style, head: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, text) of each conversation of a text file. style: how it marks turns; head: its
    beginning, from which the usual gap before answers is measured.

    Once a conversation has an answer, the next begins at a system text or a token that begins a text, or at a question
    after a ruler, after more empty lines than stand before answers, or when BLOCK characters are passed; for a style of
    exercises at each question. One also ends at a line of "%" (a fortune file), and beyond LARGEST_BLOCK characters.
    """
    usual = _gap_before_answers(head, style)
    alone = isinstance(style, _Named) and style.asks_alone
    block: list[str] = []
    waiting: list[str] = []  # empty lines and rulers
    begins, size, gap, answered = 1, 0, 0.0, False
    for number, line in enumerate(lines, 1):
        if not line.strip() or _RULER.match(line):
            waiting.append(line)
            gap += inf if line == END_OF_FORTUNE else _height(line)
            continue
        sides = style.sides(line)
        first = sides[0] if sides and not line.lstrip().startswith("[/INST]") else None
        is_new = (
            first == "system" or _PREAMBLE.match(line) is not None or line.startswith(("<s>", "<bos>", "<|begin_of"))
        )
        is_apart = first == "user" and (alone or gap > usual or size > BLOCK)
        if block and (answered and (is_new or is_apart) or gap == inf or size > LARGEST_BLOCK):
            yield begins, "".join(block)
            block, size, answered = [], 0, False
        elif block:
            block += waiting
        if not block:
            begins = number
        block.append(line)
        size, gap, waiting, answered = size + len(line), 0, [], answered or "assistant" in sides
    if block:
        yield begins, "".join(block)


def _gap_before_answers(head: str, style: _Style) -> float:
    """Return the median number of empty lines before the answers in head, where a ruler counts as 1000 empty lines; 0
    if there are no answers."""
    gaps, gap = [], 0
    for line in head.splitlines():
        if not line.strip() or _RULER.match(line):
            gap += _height(line)
            continue
        gaps += [gap] if style.sides(line)[:1] == ["assistant"] else []
        gap = 0
    return median(gaps) if gaps else 0


def _height(line: str) -> int:
    """Return 1 for an empty line and 1000 for a ruler, which divides more than any number of empty lines."""
    return 1_000 if line.strip() else 1
