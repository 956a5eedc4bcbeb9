"""Questions from documents, below a dataset of plain text: what is to be written and by whom, its progress, and the
rows to review, each beside the passage that proves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

from core import files
from core.chat.endpoint import LOCAL, Endpoint
from core.chat.making.drafts import Draft, Exchange, Kind
from core.chat.making.making import MARKS, WRITTEN, Decision, Making, Mark
from core.chat.making.passage_rows import size_message
from core.chat.making.passages import Passage
from core.chat.making.prompts import NAMES
from core.chat.making.rows import SHOWN, Dropped, MadeRow, MakingOrder, Result
from core.errors import ChatError, GarageError
from core.files import JsonObject
from core.memory import budget as budgets
from webui.kit import format, samples
from webui.kit.drawn_part import fields_sent, select
from webui.kit.html import Html, bar, join, muted, notice, success, tag
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording
from webui.pages.chat_choices import target_choices
from webui.server import set_file
from webui.state.making import MakingProgress
from webui.state.services import Services

SERVER = "server"
AT_ONCE = 20  # rows to review
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "absent")
COUNTS, WORDINGS, ABSENT = (1, 2, 3, 5, 8), (1, 2, 3, 4), ("0", "0.1", "0.2")
MAX_FIELD = 500  # characters of an address, a name or a key
MAX_EDIT = 8000  # of a question or an answer
MAX_EXAMPLE = 1000  # of one whose style is followed: three stand in each request
KEYS: dict[Decision, str] = {"accept": "a", "reject": "r", "more": "l", "never": "n"}


class DocumentQuestions:
    """The section below a dataset of plain text in which a model writes questions and answers from it: settings,
    progress, and the rows for review. A making: the rows written for one order of settings, kept on disk."""

    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    def drawn(self, request: JsonObject) -> Html:
        """Return the section for any JSON from a browser: progress or settings, and the rows made so far; empty for a
        dataset that is no text."""
        id = str(request.get("run") or "")
        if not self.services.datasets.knows(id) or (info := self.services.datasets.get(id)).format != "text":
            return Html("")
        w, progress = self.w, self.services.makings.progress()
        mine = progress if progress.dataset == info.id else MakingProgress()
        making = self.services.makings.newest(info.id)
        parts = [tag("h3", w.t("making_view.title")), muted(w.t("making_view.about"))]
        if mine.at_work:
            parts += self._at_work(mine)
        else:
            parts += [notice(w.render(mine.error), "warn")] if mine.error else []
            parts += self._choosing(info.id, fields_sent(request), making)
        if making is not None and making.results():
            parts += self._made(making, fields_sent(request))
        return join(parts)

    # ---- choosing and progress ------------------------------------------------------------------------------------
    def _at_work(self, progress: MakingProgress) -> Iterator[Html]:
        """Yield a sentence on passages and time left, a bar, and Stop."""
        w = self.w
        if progress.stage in ("writing", "paused"):
            sentence = w.t("making_view.passages", done=progress.done, total=progress.total)
        elif progress.stage == "waiting" and (busy := self.services.snapshots.now().busy):
            sentence = w.t("making_view.waiting_for", name=busy.name)
        else:
            sentence = w.t(f"making_view.{progress.stage}")
        if progress.seconds_left is not None:
            left = w.t("making_view.left", time=format.duration(w, progress.seconds_left))
            speed = w.t("making_view.speed", rows=round(progress.rows_an_hour or 0))
            sentence = f"{sentence} · {left} · {speed}"
        if progress.stage == "paused":
            yield notice(w.t("making_view.paused"), "warn")
        percent = round(100 * progress.done / progress.total) if progress.total else None
        yield muted(sentence)
        yield bar(sentence, percent)
        yield tag("button", w.t("chat_page.stop"), type="button", class_="lg-small", data_act="stop", id="mk-stop")

    def _choosing(self, dataset: str, fields: JsonObject, making: Making | None) -> Iterator[Html]:
        """Yield the fields with the values of the browser, else of the newest making, what there is to do, and Start;
        folded once there is a making."""
        w, models = self.w, self._models()
        writers = [*models, (w.t("making_view.server"), SERVER)]
        kept = _fields_of(making.order) if making else {}
        chosen = {"writer": writers[0][1], "kind": "questions", "count": "3", "wordings": "1", "absent": "0",
                  "language": ""} | kept  # fmt: skip
        chosen |= {name: value for name, value in fields.items() if name in chosen and isinstance(value, str)}
        if chosen["writer"] not in [value for _, value in writers]:
            chosen["writer"] = writers[0][1]
        is_same = making is not None and all(chosen[name] == value for name, value in kept.items() if name in chosen)
        missing = len(_read(making).passages) - len(_read(making).results) if making and is_same else 0
        kinds = [(w.t(f"making_view.kind_{kind}"), kind) for kind in KINDS]
        counts, wordings = ([(str(count), str(count)) for count in offered] for offered in (COUNTS, WORDINGS))
        absent = [(w.t("making_view.absent_share", percent=round(100 * float(share))), share) for share in ABSENT]
        server = [
            _input(
                "server_url", w.t("making_view.server_url"), kept.get("server_url", ""), "http://127.0.0.1:11434/v1"
            ),
            _input("server_model", w.t("making_view.server_model"), kept.get("server_model", "")),
        ]
        form = tag(
            "div",
            select("writer", w.t("making_view.writer"), writers, chosen["writer"]),
            *(server if chosen["writer"] == SERVER else ()),
            select("kind", w.t("making_view.kind"), kinds, chosen["kind"]),
            select("count", w.t("making_view.count"), counts, chosen["count"]),
            select("wordings", w.t("making_view.wordings_each"), wordings, chosen["wordings"]),
            select("absent", w.t("making_view.absent"), absent, chosen["absent"]),
            select("language", w.t("making_view.language"), self._languages(), chosen["language"], owner="rows"),
            class_="mk-fields",
        )
        label = w.t("making_view.go_on" if missing else "making_view.again" if making else "making_view.start")
        start = tag("button", label, type="button", class_="lg-small", data_act="start", id="mk-start")
        yield from self._size(dataset, chosen, missing)
        if missing:
            yield muted(w.t("making_view.missing", count=missing))
        yield tag("details", tag("summary", w.t("making_view.settings")), form, self._style(kept), class_="ep-how",
                  open=making is None, id="mk-settings")  # fmt: skip
        attempt = tag("button", w.t("making_view.try"), type="button", class_="lg-small", data_act="try", id="mk-try")
        yield tag("div", start, attempt if making is None else None, class_="ep-line")

    def _style(self, kept: Mapping[str, str]) -> Html:
        """Return the fields of the examples whose style is followed, folded unless the newest making has some."""
        w, names = self.w, [(name, place) for place in range(SHOWN) for name in ("question", "answer")]
        fields = (
            _text(field, f"{w.t(f'making_view.{name}')} {place + 1}", kept.get(field, ""), MAX_EXAMPLE, rows=2)
            for name, place in names
            for field in [_field_name(name, place)]
        )
        summary = tag("summary", w.t("making_view.style"))
        about = tag("div", muted(w.t("making_view.style_about")), tag("div", *fields, class_="mk-style"))
        return tag("details", summary, about, class_="ep-how", id="mk-style", open=_field_name("question", 0) in kept)

    def _size(self, dataset: str, chosen: Mapping[str, str], missing: int) -> Iterator[Html]:
        """Yield how much there is to read and write, how long that takes where the chosen model has written before, and
        the memory it needs. missing: passages that a stopped making lacks, 0 for all."""
        w = self.w
        names = ("writer", "server_url", "server_model") if chosen["writer"] == SERVER else ("writer",)
        took = [
            result.seconds
            for one in Making.all_of(self.services.workspace)
            if _values(_fields_of(one.order), names) == _values(chosen, names)
            for result in _read(one).results.values()
        ]
        time = w.t("making_view.time_unknown")
        try:
            passages = self.services.makings.divided(dataset)
        except GarageError:  # its table says why
            passages = None
        if passages is not None:
            yield muted(w.render(size_message(int(chosen["count"]), passages)))
            if took:
                seconds = sum(took) / len(took) * (missing or len(passages))
                time = w.t("making_view.time", time=format.duration(w, seconds))
        yield muted(f"{time} {w.t('making_view.size')}")
        if chosen["writer"] != SERVER and (need := self.services.makings.needed_gib(chosen["writer"])) is not None:
            budget = budgets.of_machine(self.services.monitor.newest())
            is_tight = budget.free_gib is not None and need > budget.free_gib
            text = w.t("making_view.memory", need=format.gib(w, need), place=format.free_memory(budget, w))
            yield notice(text, "warn") if is_tight else muted(text)

    def _languages(self) -> list[tuple[str, str]]:
        """Return the languages that rows can be written in, first that of the document."""
        return [(self.w.t("making_view.of_document"), "")] + [
            (self.w.t(f"judges.language_{code}"), code) for code in NAMES
        ]

    def _models(self) -> list[tuple[str, str]]:
        """Return the models of this PC that can write, base models first."""
        choices = target_choices(self.services, self.w, self.services.snapshots.now().rows)
        return sorted(choices, key=lambda choice: not choice[1].startswith("base:"))

    # ---- what was made --------------------------------------------------------------------------------------------
    def _made(self, making: Making, fields: JsonObject) -> Iterator[Html]:
        """Yield the counts, the reasons of dropped rows, the button that adds the dataset, and the first rows to
        review, each beside its passage."""
        w = self.w
        read = _read(making)
        rows, marks = read.rows, read.marks
        dropped = Counter(one.why for result in read.results.values() for one in result.dropped)
        dropped["repeat"] += len(read.repeats)
        waiting = [row for row in rows if row.id not in marks]
        rejected = sum(mark.decision in ("reject", "never") for mark in marks.values())
        values = {"rows": len(rows), "reviewed": len(marks), "rejected": rejected}
        yield tag("h3", w.t("making_view.rows", **values), class_="mk-count")
        known = sum(row.known for row in rows)
        reasons = [w.t(f"making.dropped_{why}", count=count) for why, count in sorted((+dropped).items())]
        reasons += [w.t("making_view.known", count=known)] if known else []
        if reasons:
            listed = tag("ul", *(tag("li", reason) for reason in reasons))
            yield tag("details", tag("summary", w.t("making_view.dropped", count=dropped.total())), listed,
                      class_="ep-how", id="mk-dropped")  # fmt: skip
        if rows:
            add = tag("button", w.t("making_view.add"), type="button", class_="lg-small", data_act="add", id="mk-add")
            address = set_file.address(making.id, w.language, set_file.MADE)
            links = (
                tag("a", w.t(f"making_view.{name}"), href=address + query, download=True)
                for name, query in (("export", ""), ("export_plain", f"&{set_file.PLAIN}"))
            )
            yield tag("div", add, *links, class_="ep-line", id="mk-take")
        if waiting:
            yield muted(w.t("making_view.keys"))
        for place, row in enumerate(waiting[:AT_ONCE]):
            passage = read.passages[row.passage]
            where = " › ".join([passage.file, *self._pages(passage, row), *passage.headings])
            is_edited = fields.get("edit") == row.id
            yield tag(
                "article",
                tag("div", tag("small", where, dir="auto"), _marked(passage.text, row.spans), class_="mk-passage"),
                tag("div", *self._row(row, is_edited), class_="mk-row"),
                class_="mk-pair" + (" mk-now" if place == 0 else ""),
                id=f"mk-{row.id}",
            )
        if len(waiting) > AT_ONCE:
            yield muted(w.t("making_view.follow", count=len(waiting) - AT_ONCE))

    def _pages(self, passage: Passage, row: MadeRow) -> list[str]:
        """Return the pages of a PDF that a row's quotes stand on, as one text; none of other documents."""
        pages = ", ".join(map(str, dict.fromkeys(passage.pages_of(row.spans))))
        return [self.w.t("making_view.page", pages=pages)] if pages else []

    def _row(self, row: MadeRow, is_edited: bool) -> Iterator[Html]:
        """Yield a row's questions and answers with its buttons, or as fields with Save and Cancel if it is edited. The
        buttons name their keys on the keyboard, which act on the first row to review."""
        w = self.w
        if is_edited:
            for place, step in enumerate(row.draft.steps):
                for name, text in (("question", step.question), ("answer", step.answer)):
                    yield _text(f"{name}_{place}", w.t(f"making_view.{name}"), text, MAX_EDIT, rows=3)
            yield tag("div", _button(w.t("making_view.save"), act="save", row=row.id),
                      tag("button", w.t("making_view.cancel"), type="button", class_="lg-small", data_set="edit",
                          data_value=""), class_="mk-buttons")  # fmt: skip
            return
        for step in row.draft.steps:
            yield tag("p", tag("strong", step.question), dir="auto")
            yield tag("p", step.answer, dir="auto")
        if row.draft.wordings:
            yield muted(w.t("making_view.wordings", count=len(row.draft.wordings)))
        if row.known:
            yield tag("span", w.t("making_view.is_known"), class_="lg-badge")
        buttons = [
            _button(w.t(f"making_view.{decision}"), act="mark", row=row.id, decision=decision, key=key)
            for decision, key in KEYS.items()
        ]
        edit = tag("button", w.t("making_view.edit"), type="button", class_="lg-small", data_set="edit",
                   data_value=row.id, data_key="e")  # fmt: skip
        yield tag("div", *buttons, edit, class_="mk-buttons")

    # ---- pressed --------------------------------------------------------------------------------------------------
    def press(self, request: JsonObject) -> JsonObject:
        """Answer a button, for any JSON from a browser. Raises GarageError for what cannot be done."""
        acts = {
            "start": self._start,
            "try": self._start,
            "stop": self._stop,
            "mark": self._mark,
            "save": self._save,
            "add": self._add,
        }
        act = acts.get(str(request.get("act")))
        return act(request) if act else {"notice": ""}

    def _start(self, request: JsonObject) -> JsonObject:
        """Begin to write rows with the chosen settings, invalid ones replaced by defaults; by the act "try" of the
        first passage alone. A server that is not on this PC gets nothing before a person confirms: a warning with that
        button is returned.

        Raises ChatError without a model, for a server that a browser on another PC names, for half an example, and
        while another making is at work.
        """
        fields = fields_sent(request)
        info = self.services.datasets.get(str(request.get("run")))
        writer = str(fields.get("writer") or "")
        endpoint = None
        if writer == SERVER and request.get(IS_LOCAL) is not True:  # or it could reach what this PC alone can
            raise ChatError("making_view.elsewhere")
        if writer == SERVER:
            url, model = (str(fields.get(name) or "")[:MAX_FIELD] for name in ("server_url", "server_model"))
            endpoint = Endpoint.parse(url, model)
        elif writer not in [value for _, value in self._models()]:
            raise ChatError("making_view.no_writer")
        kind, count, wordings, absent = (str(fields.get(name)) for name in ("kind", "count", "wordings", "absent"))
        order = MakingOrder(
            title=self.w.t("making_view.name", name=samples.title(info, self.w)),
            documents=((info.id, self.services.datasets.version(info.id)),),
            writer=endpoint.name if endpoint else writer,
            kind=next((one for one in KINDS if one == kind), "questions"),
            count=int(count) if count in map(str, COUNTS) else 3,
            wordings=int(wordings) if wordings in map(str, WORDINGS) else 1,
            absent=float(absent) if absent in ABSENT else 0.0,
            language=str(fields.get("language")) if fields.get("language") in NAMES else "",
            examples=_examples(fields),
        )
        order = order.model_copy(update={"seed": self._seed(order)})
        if endpoint is not None and not endpoint.is_on_this_pc and not request.get("sureGiven"):
            sentence = self.w.t("making_view.leaves", url=endpoint.url)
            send = tag("button", self.w.t("making_view.send"), type="button", class_="lg-small", data_sure_given="yes",
                       data_act=str(request.get("act")), data_run=info.id)  # fmt: skip
            return {"notice": join([notice(sentence, "warn"), send])}
        self.services.makings.start(order, endpoint, 1 if request.get("act") == "try" else None)
        return {"notice": ""}

    def _seed(self, order: MakingOrder) -> int:
        """Return the seed of an order: that of the newest making if it has the same settings, the next one if that is
        complete, else 0."""
        newest = self.services.makings.newest(order.documents[0][0])
        if newest is None or not newest.order.model_copy(update={"seed": 0}).is_same(order):
            return 0
        read = _read(newest)
        return newest.order.seed + (len(read.results) == len(read.passages))

    def _stop(self, request: JsonObject) -> JsonObject:
        """Stop the writing."""
        self.services.makings.stop()
        return {"notice": ""}

    def _making(self, request: JsonObject) -> Making:
        """Return the newest making of the dataset `run`. Raises ChatError without one."""
        making = self.services.makings.newest(str(request.get("run")))
        if making is None:
            raise ChatError("making.unknown", id=str(request.get("run"))[:100])
        return making

    def _mark(self, request: JsonObject) -> JsonObject:
        """Keep a person's decision on a row; nothing for one that is none of KEYS."""
        decision = request.get("decision")
        if decision in KEYS:
            self._making(request).mark(Mark(row=str(request.get("row"))[:40], decision=decision))
        return {"notice": "", "chosen": {"edit": ""}}

    def _save(self, request: JsonObject) -> JsonObject:
        """Keep an edited row as accepted; nothing for an unknown row. Raises ChatError for an empty question or
        answer."""
        making, fields = self._making(request), fields_sent(request)
        row = next((one for one in making.rows()[0] if one.id == request.get("row")), None)
        if row is None:
            return {"notice": ""}
        steps = list[Exchange]()
        for place, step in enumerate(row.draft.steps):
            question, answer = (str(fields.get(f"{name}_{place}") or "").strip() for name in ("question", "answer"))
            if not question or not answer:
                raise ChatError("making_view.empty")
            steps.append(step.model_copy(update={"question": question[:2000], "answer": answer[:MAX_EDIT]}))
        making.mark(Mark(row=row.id, decision="accept", draft=Draft(steps=tuple(steps), wordings=row.draft.wordings)))
        return {"notice": "", "chosen": {"edit": ""}}

    def _add(self, request: JsonObject) -> JsonObject:
        """Make a dataset of the rows, and return the notice; the page then draws it."""
        info = self._making(request).dataset(self.services.workspace, self.services.datasets)
        sentence = self.w.t("making_view.added", name=info.name, count=info.good_rows or 0)
        return {"notice": success(sentence), "click": "#data-draw"}


@dataclass(frozen=True)
class _Read:
    """A making as it is on disk. passages: by number."""

    passages: dict[int, Passage]
    results: dict[int, Result]
    marks: dict[str, Mark]
    rows: list[MadeRow]
    repeats: list[Dropped]


def _read(making: Making) -> _Read:
    """Return a making as it is on disk; it is read again only once its files have changed."""
    return _read_as(making.path, making.order, *(files.stamp(making.path / name) for name in (WRITTEN, MARKS)))


@lru_cache(maxsize=8)
def _read_as(path: Path, order: MakingOrder, *_stamps: object) -> _Read:
    """Return a making's passages, results, marks and rows; cached by the stamps of its files."""
    making = Making(path, order)
    passages = {passage.number: passage for passage in making.passages()}
    return _Read(passages, making.results(), making.marks(), *making.rows())


def _fields_of(order: MakingOrder) -> dict[str, str]:
    """Return the values of the fields that give this order, by name."""
    share = next((share for share in ABSENT if float(share) == order.absent), "0")
    fields = {"kind": str(order.kind), "count": str(order.count), "wordings": str(order.wordings), "absent": share,
              "language": order.language}  # fmt: skip
    for place, pair in enumerate(order.examples):
        fields |= {_field_name(name, place): text for name, text in zip(("question", "answer"), pair, strict=True)}
    model, at, host = order.writer.rpartition(" @ ")
    if not at:
        return fields | {"writer": order.writer}
    scheme = "http" if host.partition(":")[0] in LOCAL else "https"
    return fields | {"writer": SERVER, "server_model": model, "server_url": f"{scheme}://{host}/v1"}


def _values(fields: Mapping[str, str], names: Sequence[str]) -> list[str | None]:
    """Return the fields of these names, None for a missing one."""
    return [fields.get(name) for name in names]


def _field_name(name: str, place: int) -> str:
    """Return the name of the form field with an example's question or answer: "example_question_0". name: question or
    answer; place: the example's number, from 0."""
    return f"example_{name}_{place}"


def _examples(fields: JsonObject) -> tuple[tuple[str, str], ...]:
    """Return the examples of the fields that are filled in. Raises ChatError for a question or an answer alone."""
    pairs = [
        tuple(str(fields.get(_field_name(name, place)) or "").strip()[:MAX_EXAMPLE] for name in ("question", "answer"))
        for place in range(SHOWN)
    ]
    if any(bool(question) != bool(answer) for question, answer in pairs):
        raise ChatError("making_view.empty")
    return tuple((question, answer) for question, answer in pairs if question)


def _marked(text: str, spans: tuple[tuple[int, int], ...]) -> Html:
    """Return a passage with its quotes marked. spans: (start, end) of each; one that overlaps the last is left out."""
    parts, at = list[str](), 0
    for start, end in sorted(spans):
        if start >= at:
            parts += [text[at:start], tag("mark", text[start:end])]
            at = end
    return tag("div", *parts, text[at:], class_="mk-text", dir="auto", tabindex=0)


def _input(name: str, label: str, value: str, hint: str = "") -> Html:
    field = tag(
        "input",
        type="text",
        name_=name,
        value=value,
        placeholder=hint,
        maxlength=MAX_FIELD,
        id=f"ep-{name}",
        autocomplete="off",
    )
    return tag("label", tag("span", label), field, class_="ep-field")


def _text(name: str, label: str, text: str, most: int, rows: int) -> Html:
    """Return a labelled field for a text of several lines."""
    area = tag("textarea", text, name_=name, rows=rows, maxlength=most, dir="auto")
    return tag("label", tag("span", label), area, class_="ep-field")


def _button(label: str, act: str, row: str, decision: str | None = None, key: str | None = None) -> Html:
    """Return a button that does `act` with a row. key: its key on the keyboard."""
    return tag("button", label, type="button", class_="lg-small", data_act=act, data_row=row, data_decision=decision,
               data_key=key)  # fmt: skip
