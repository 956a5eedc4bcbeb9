"""Recognizes a table with one message in each row: columns for the speaker, the text, the conversation and the order.

speaker         role, sender, speaker, nick, ...: roles (user, agent, ...), or names of people
conversation    conversation_id, ticket, thread, ...; or parent_id, the message that each answers; without such columns,
                a system message or a turn that counts from its beginning again starts a conversation
order           turn, index, ... or date and time; otherwise the order of the file

`core/data/chats/message_rows` reads the rows of such a table.
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from itertools import pairwise
from statistics import median
from typing import Literal

from core.data.chats import dates
from core.data.shapes.left_out import NEARLY_ALL, has_value
from core.data.shapes.speakers import Role, role_of
from core.messages import Message, msg
from core.values import Frozen

LONGEST_ID, LONGEST_NAME = 200, 80  # characters
_MIN_KINDS, _ROWS_OF_A_KIND = 20, 5  # rows, and rows with each value
_MIN_SHUFFLED = 50  # rows whose ids are all different: they name no conversation

# Words of column names: English, German, Spanish, French, Italian, Portuguese, Russian, Chinese, Japanese, Korean.
_CLEAR_SPEAKER = """
    role speaker sender participant nick nickname character talker actor who sprecher sprecherin absender rolle hablante
    remitente rol locuteur expéditeur rôle mittente ruolo parlante falante remetente papel роль отправитель говорящий
    发送者 发送人 发言人 说话人 角色 发件人 話者 発言者 送信者 화자 발신자 보낸사람"""
_VAGUE_SPEAKER = """
    author user username name person from by side party direction autor auteur autore автор
    作者 用户 姓名 投稿者 작성자"""
_CONTENT = """
    content text message msg body utterance value line dialogue dialog said speech transcript comment post sentence
    nachricht inhalt aussage mensaje texto contenido mensagem conteúdo messaggio testo contenu texte сообщение текст
    реплика 内容 消息 发言 文本 对话 正文 メッセージ 本文 発言 메시지 내용 대화"""
_CONVERSATION = """
    conversation conversations conv convo dialog dialogue chat thread session ticket call case interaction contact
    incident sample gespräch unterhaltung konversation sitzung vorgang conversación conversacion conversa conversazione
    diálogo dialogo sesión sesion sessione sessão беседа диалог разговор сессия 会话 对话 工单
    transcript 会話 スレッド 대화 세션"""
# among people with names
_SCENE = "scene episode season channel room chapter act szene kanal escena canal scène 场景 频道"
_AROUND = "folder file filename ordner datei season"  # ids of conversations often begin again in each of these
_ID = (
    "id ids no nr num number nummer numero número numéro key uuid guid hash ref code idx index номер 号 编号 番号 번호"
)
_TURN = """
    turn index idx position pos order step seq sequence round reihenfolge turno orden ordem tour ordre ход порядок 轮次
    序号 顺序 順番 순서"""
_MESSAGE = "message msg utterance line row reply nachricht mensaje"
_TIME = """
    time timestamp date datetime created sent at ts when datum zeit uhrzeit zeitpunkt fecha hora heure data ora дата
    время 时间 日期 日時 時刻 시간 날짜"""
_NOT_TALK = {"subject", "title", "headline", "url", "rating", "stars", "betreff", "titel"}  # mails, articles, reviews
_WORDS = re.compile(r"[^\W_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class MessageColumns(Frozen):
    """The columns of a table with one message in each row.

    turn, time: the order in a conversation. message, parent: ids of a message and of the one that it answers. rank: of
    the answers to one message, the lowest is the best. are_roles: the speakers are roles, not names. system_answers:
    "system" is the side that answers. begins: what starts a conversation, if no column does. newest_first: the file's
    order.
    """

    speaker: str
    content: str
    conversation: tuple[str, ...] = ()
    message: str | None = None
    parent: str | None = None
    rank: str | None = None
    turn: str | None = None
    time: tuple[str, ...] = ()
    are_roles: bool = False
    system_answers: bool = False
    begins: Literal["", "system", "turn"] = ""
    newest_first: bool = False

    @property
    def used(self) -> set[str]:
        """The columns that are read; values in others are reported as left out."""
        single = (self.speaker, self.content, self.message, self.parent, self.rank, self.turn)
        return {*self.conversation, *self.time, *(name for name in single if name)}

    @property
    def ends_known(self) -> bool:
        """True if the file tells where a conversation ends."""
        return bool(self.conversation or self.parent or self.begins)

    def role(self, value: object) -> Role | None:
        """Return the role that a speaker's cell names, "assistant" for a system that answers; None if it names none."""
        role = role_of(value)
        return "assistant" if role == "system" and self.system_answers else role

    def note(self) -> Message:
        """Return a note on the columns that are read, on how messages are grouped, and on how they are ordered."""
        is_grouped, order = (
            self.ends_known or self.time,
            [self.turn] if self.turn and self.conversation else [*self.time],
        )
        how = self.begins or ("silence" if self.time else "no_end")
        grouped = msg("data.note_messages_by", columns=[*self.conversation]) if self.conversation else None
        if self.parent:
            grouped, order = msg("data.note_messages_tree", parent=self.parent), [self.parent]
        return msg(
            "data.note_messages",
            speaker=self.speaker,
            content=self.content,
            grouped=grouped or msg(f"data.note_messages_{how}"),
            ordered=msg("data.note_messages_order", columns=order)
            if order and is_grouped
            else msg("data.note_messages_as_is"),
        )


def find(rows: Sequence[Mapping[str, object]]) -> MessageColumns | None:
    """Return the columns of a table with one message in each row: found by a column of roles, else of names. None for
    any other table. rows: the first ones, from whose times it also says whether the newest come first."""
    if len(rows) < 2:
        return None
    table = _FirstRows(rows)
    columns = _columns_of_roles(table) or _columns_of_names(table)
    # Parents and turns order messages by themselves.
    if columns is None or columns.parent or columns.turn or not columns.time:
        return columns
    times = [time for time in moments(rows, columns.time) if time is not None]
    # Where conversations are mixed, times go both ways.
    falls, rises = (sum(map(compare, times, times[1:])) for compare in (operator.gt, operator.lt))
    return columns.model_copy(update={"newest_first": falls > rises})


class _FirstRows:
    """The values of the first rows, by column."""

    def __init__(self, rows: Sequence[Mapping[str, object]]):
        self.rows = rows
        names = dict.fromkeys(name for row in rows for name in row if isinstance(name, str))
        self.values = {name: [row.get(name) for row in rows] for name in names}

    def filled(self, name: str) -> list[object]:
        """Return the values of a column that are not empty."""
        return [value for value in self.values[name] if has_value(value)]

    def is_filled(self, name: str) -> bool:
        """Return whether nearly all rows have a value."""
        return len(self.filled(name)) >= NEARLY_ALL * len(self.rows)

    def is_scalar(self, name: str, most: int) -> bool:
        """Return True if a column has values, all of them texts, numbers or dates of at most `most` characters."""
        values = self.filled(name)
        return bool(values) and all(
            isinstance(value, str | int | float | datetime | date) and len(str(value)) <= most for value in values
        )

    def conversations(self, names: Sequence[str]) -> list[list[int]]:
        """Return the row indexes of each conversation of the sample: rows with the same values in the columns
        `names`."""
        groups: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
        for index in range(len(self.rows)):
            groups[tuple(str(self.values[name][index]) for name in names)].append(index)
        return list(groups.values())


def _columns_of_roles(table: _FirstRows) -> MessageColumns | None:
    """Return columns of messages around one that holds nearly only roles (user and assistant, or user and a system that
    answers). None unless conversations can be told apart: by parents, a column, or turns that alternate."""
    # The first column that fits: a role is written in one column only.
    for speaker in table.values:
        roles = [role_of(value) for value in table.filled(speaker)]
        known = [role for role in roles if role]
        if len(known) < NEARLY_ALL * len(roles) or not table.is_filled(speaker) or "user" not in known:
            continue
        system_answers = "assistant" not in known and "system" in known
        if "assistant" not in known and not system_answers:
            continue
        columns = _columns_around(table, speaker, are_roles=True)
        if columns is None:
            continue
        columns = columns.model_copy(update={"system_answers": system_answers})
        if columns.parent:
            return columns
        is_named = any(_has_word(speaker, words) for words in (_CLEAR_SPEAKER, _VAGUE_SPEAKER))
        if columns.conversation and (is_named or _alternates(table, columns)):
            return columns
        if not columns.conversation and _alternates(table, columns):
            return columns.model_copy(update={"begins": _beginning(table, columns)})
    return None


def _columns_of_names(table: _FirstRows) -> MessageColumns | None:
    """Return columns of messages around one that is named like a speaker's and holds repeated names of people. None
    unless they reply to each other or take turns."""
    candidates = [name for name in table.values if _has_word(name, _CLEAR_SPEAKER) or _has_word(name, _VAGUE_SPEAKER)]
    # Clear names ("speaker") before vague ones ("name").
    for speaker in sorted(candidates, key=lambda name: not _has_word(name, _CLEAR_SPEAKER)):
        people = table.filled(speaker)
        if not table.is_filled(speaker) or not table.is_scalar(speaker, LONGEST_NAME):
            continue
        # People write more than once.
        if not all(isinstance(person, str) for person in people) or not 2 <= len(set(people)) <= len(people) * 2 / 3:
            continue
        columns = _columns_around(table, speaker, are_roles=False)
        if columns is None or _last_word(speaker) in _set_of_words(_ID) and not columns.conversation:
            continue
        is_clear = _has_word(speaker, _CLEAR_SPEAKER)
        is_talk = not any(_NOT_TALK & {*_words(name)} or name.rstrip().endswith("?") for name in table.values)
        evidence = columns.conversation or (
            is_talk and (is_clear or (columns.time and len(set(people)) * 5 <= len(people)))
        )
        # A person may write several messages in a row, so they take turns less strictly than roles.
        if columns.parent or evidence and _alternates(table, columns, least=0.3):
            return columns
    return None


def _columns_around(table: _FirstRows, speaker: str, are_roles: bool) -> MessageColumns | None:
    """Return the columns of the messages beside a column of speakers: the text with the conversation, turn and time,
    or, if rows name the message that they answer, with the ids and the rank alone. None without a column of text."""
    others = [name for name in table.values if name != speaker]
    content = _content(table, others, are_roles)
    if content is None:
        return None
    others.remove(content)
    scalar = [name for name in others if table.is_scalar(name, LONGEST_ID)]
    conversation = tuple(name for name in scalar if _is_conversation(table, name, are_roles))
    if not conversation and are_roles:
        # An "id" that repeats is the conversation's; one that does not is the message's.
        conversation = tuple(name for name in scalar if name.strip().lower() == "id" and _repeats(table, name))
    if not conversation and not are_roles:
        conversation = tuple(name for name in scalar if _has_word(name, _SCENE) and _repeats(table, name))
    # Names say less than roles, so more of the messages have to answer another.
    message, parent = _tree(table, scalar, least=0.4 if are_roles else 0.6)
    if parent:
        rank = next((name for name in others if name.strip().lower() == "rank"), None)
        return MessageColumns(
            speaker=speaker, content=content, message=message, parent=parent, rank=rank, are_roles=are_roles
        )
    if conversation:
        conversation = (*(name for name in scalar if _repeats(table, name) and _has_word(name, _AROUND)), *conversation)
    rest = [name for name in scalar if name not in conversation and table.is_filled(name)]
    turn = next((name for name in rest if _is_turn(table, name)), None)
    dated = [name for name in rest if name != turn and _has_word(name, _TIME)]
    # One column, or two neighbours: date, time.
    time = next(
        (names for names in [*((name,) for name in dated), *pairwise(dated)] if None not in moments(table.rows, names)),
        (),
    )
    return MessageColumns(
        speaker=speaker, content=content, conversation=conversation, turn=turn, time=time, are_roles=are_roles
    )


def moments(rows: Sequence[Mapping[str, object]], names: tuple[str, ...]) -> list[float | None]:
    """Return the time of each row in seconds, from one column, or from the date's and the time's side by side; None for
    what is no time."""
    cells = [time_cell(row, names) for row in rows]
    order = date_order(cells)
    return [dates.moment(cell, order) for cell in cells]


def time_cell(row: Mapping[str, object], names: tuple[str, ...]) -> object:
    """Return the value of a row's time, of a date and a time in two columns both as one text."""
    return row.get(names[0]) if len(names) == 1 else " ".join(str(row.get(name) or "") for name in names).strip()


def date_order(cells: Iterable[object]) -> dates.Order:
    """Return the order of day, month and year in the dates among these cells, inferred from all of them ("dmy" if
    nothing decides); other cells are ignored."""
    return dates.order_of(numbers[:3] for cell in cells if (numbers := dates.numbers_in(cell)))


def _content(table: _FirstRows, names: Sequence[str], are_roles: bool) -> str | None:
    """Return the column of the messages' texts: among columns of texts with a fitting name (message, content, ...) the
    one with the longest texts, where those whose whole name fits come first. Without such a name, the only column with
    texts of several words; None if there are several or none."""
    kinds = (str, list, type(None)) if are_roles else (str, type(None))
    # A column that is empty in most rows holds notes, not what was said.
    texts = [
        name
        for name in names
        if 2 * len(table.filled(name)) >= len(table.rows)
        and all(isinstance(value, kinds) for value in table.values[name])
        and not _are_kinds(table.filled(name))
    ]
    length = {name: median(len(str(value)) for value in table.filled(name)) for name in texts}
    order = _set_of_words(_CONTENT)
    named = [
        name
        for name in texts
        if _has_word(name, _CONTENT) and _last_word(name) not in _set_of_words(_ID) | _set_of_words(_TIME)
    ]
    long = [
        name
        for name in texts
        if any(str(value).count(" ") >= 2 or _CJK.search(str(value)) for value in table.filled(name))
    ]
    if named:
        # Where rows lack what is named so, such as an older wording, and one other column has a text in all of them.
        in_all = [name for name in long if table.is_filled(name)]
        if (
            len(in_all) == 1
            and not any(map(table.is_filled, named))
            and 2 * length[in_all[0]] >= min(length[name] for name in named)
        ):
            return in_all[0]
        exact = [name for name in named if name.strip().lower() in order]
        return max(exact or named, key=lambda name: length[name])
    return long[0] if len(long) == 1 else None


def _are_kinds(values: Sequence[object]) -> bool:
    """Return True for a few values in many rows: kinds of messages, not what was said."""
    return len(values) >= _MIN_KINDS and len({*map(str, values)}) * _ROWS_OF_A_KIND <= len(values)


def _is_conversation(table: _FirstRows, name: str, are_roles: bool) -> bool:
    """Return True if a column identifies the conversation of each message: its name says so (conversation_id, ticket),
    and its values repeat. In fewer than _MIN_SHUFFLED rows they need not repeat."""
    words = [word for word in _words(name) if word not in _set_of_words(_ID)]
    is_named = bool(words) and (
        all(word in _set_of_words(_CONVERSATION) for word in words) or _has_cjk_word(name, _CONVERSATION)
    )
    if not is_named or any(_has_cjk_word(name, other) for other in (_TURN, _TIME)):
        return False
    values = [str(value) for value in table.filled(name)]
    return len(set(values)) < len(values) or len(values) < _MIN_SHUFFLED


def _tree(table: _FirstRows, names: Sequence[str], least: float) -> tuple[str | None, str | None]:
    """Return the columns of a message's id and of the id that it answers: a column named as parent or reply, filled in
    the share `least` of rows, most of whose ids are in another one. (None, None) if there are none."""
    for parent in names:
        if not {"parent", "reply", "replied"} & {*_words(parent)}:
            continue
        answered = [str(value) for value in table.filled(parent) if not is_nothing(value)]
        # The first message of a conversation answers none.
        if not least * len(table.rows) <= len(answered) < len(table.rows):
            continue
        for name in names:
            ids = {str(value) for value in table.filled(name)}
            known = sum(id in ids for id in answered)
            if name != parent and len(ids) == len(table.rows) and 2 * known >= len(answered):
                return name, parent
    return None, None


def is_nothing(value: object) -> bool:
    """Return True for an empty cell, and for the words by which programs write one."""
    return not has_value(value) or str(value).strip().lower() in ("none", "null", "nan")


def _repeats(table: _FirstRows, name: str) -> bool:
    """Return True for a filled column each of whose values stands in two rows or more, on average."""
    values = [str(value) for value in table.filled(name)]
    return table.is_filled(name) and 2 * len(set(values)) <= len(values)


def _is_turn(table: _FirstRows, name: str) -> bool:
    """Return whether a column numbers the messages of a conversation: by its name, and by values that contain digits
    and differ."""
    words, known = _words(name), _set_of_words(_TURN)
    number = bool(words) and words[-1] in _set_of_words(_ID) and words[0] in _set_of_words(_MESSAGE)
    if not (number or _has_cjk_word(name, _TURN) or any(word in known for word in words)):
        return False
    values = [str(value) for value in table.filled(name)]
    shapes = {re.sub(r"\d+", "0", value) for value in values}  # hashes and addresses of mails count nothing
    return (
        all(any(map(str.isdigit, value)) for value in values)
        and len({*values}) > 1
        and (not number or len(shapes) == 1)
    )


def _beginning(table: _FirstRows, columns: MessageColumns) -> Literal["", "system", "turn"]:
    """Return what begins a conversation where no column numbers them: a smaller turn number ("turn"), a system message
    ("system", if there are several), or ""."""
    if columns.turn:
        numbers = [natural(value) for value in table.values[columns.turn]]
        if any(after < before for before, after in pairwise(numbers)) and not columns.newest_first:
            return "turn"
    systems = sum(columns.role(value) == "system" for value in table.values[columns.speaker])
    return "system" if systems > 1 else ""


def _alternates(table: _FirstRows, columns: MessageColumns, least: float = 0.7) -> bool:
    """Return True if the speaker changes in at least this share of the steps from one row to the next within
    conversations. Without any step, True if the table has a column for the conversation."""
    speakers = [str(value).strip().lower() for value in table.values[columns.speaker]]
    groups = table.conversations(columns.conversation) if columns.conversation else [[*range(len(speakers))]]
    changes = [speakers[one] != speakers[other] for group in groups for one, other in pairwise(group)]
    return sum(changes) >= least * len(changes) if changes else bool(columns.conversation)


def natural(value: object) -> tuple[float, ...]:
    """Return the numbers in a value, as a key by which turn 2 comes before turn 10."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (float(value),)
    return tuple(float(number) for number in re.findall(r"\d{1,15}(?:\.\d{1,15})?", str(value)))


@cache
def _set_of_words(words: str) -> frozenset[str]:
    """Return the words of a text, separated by blanks, as a set; cached."""
    return frozenset(words.split())


def _words(name: str) -> list[str]:
    """Return the words of a column's name in small letters, numbers apart: conversationId and conversation_id have
    two."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
    return [word for part in _WORDS.findall(parted) for word in re.findall(r"\d+|\D+", part)]


def _last_word(name: str) -> str:
    """Return the last word of a column's name in small letters, such as "id" of conversationId; "" without a word."""
    return next(reversed(_words(name)), "")


def _has_word(name: str, words: str) -> bool:
    """Return True if a column's name contains one of the words, in any case. words: one text, divided at blanks."""
    return not _set_of_words(words).isdisjoint(_words(name)) or _has_cjk_word(name, words)


def _has_cjk_word(name: str, words: str) -> bool:
    """Return True if a name in Chinese, Japanese or Korean contains one of the words of these scripts, at any place."""
    return bool(_CJK.search(name)) and any(word in name for word in _set_of_words(words) if _CJK.match(word))
