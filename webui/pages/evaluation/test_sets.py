"""The test sets of the workspace: listed, opened, added to, brought in from a file, saved to one, deleted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from core import files
from core.chat.evaluation import sets
from core.chat.evaluation.sets import TestSet
from core.chat.prompts import MAX_BYTES, Prompt
from core.errors import ChatError
from core.files import JsonObject
from core.workspace import names
from core.workspace.folder import Workspace
from webui.kit import format
from webui.kit.drawn_part import Options, select
from webui.kit.html import Html, muted, tag
from webui.kit.icons import icon
from webui.kit.wording import Wording
from webui.server.set_file import TESTS, address
from webui.state.services import Services

SHOWN = 200  # questions of an opened set
MAX_TEXT = 20_000  # characters of a question that is typed


def every_set(workspace: Workspace) -> tuple[TestSet, ...]:
    """Return all sets, read again when one has changed."""
    return _every_set(workspace, files.stamp(workspace.root / sets.FOLDER))


@lru_cache(maxsize=2)
def _every_set(workspace: Workspace, stamp: object) -> tuple[TestSet, ...]:
    """Return all test sets of the workspace, cached. stamp: of their folder, so that they are read again after a
    change."""
    return tuple(sets.all_sets(workspace))


def set_name(one: TestSet, w: Wording) -> str:
    """Return the title with the number of questions; for a base's failures the title has that base."""
    is_failures = one.base and one.title.startswith("failures-")
    title = w.t("evaluate_page.failures", name=format.model_name(one.base)) if is_failures else one.title
    return w.t("evaluate_page.set", name=title, count=len(one.prompts))


def test_sets(services: Services, opened: str, w: Wording) -> Iterator[Html]:
    """Yield the list, the fields of a new question, and the file that adds a set. opened: the name of the set whose
    questions are shown."""
    every, models = every_set(services.workspace), services.models.choices()
    bases = [(w.t("evaluate_page.no_base"), ""), *((format.model_name(model), model) for model in models)]
    yield tag("h2", w.t("evaluate_page.sets"))
    yield muted(w.t("evaluate_page.sets_about"))
    if every:
        yield tag("ul", *(_listed(one, bases, one.name == opened, w) for one in every), class_="ep-sets")
    shown = next((one.title for one in every if one.name == opened and not one.base), w.t("evaluate_page.own"))
    fields = (
        tag("input", type="text", name_="title", value=shown, maxlength=60),
        tag("textarea", name_="question", rows=2, maxlength=MAX_TEXT),
        tag("textarea", name_="expected", rows=2, maxlength=MAX_TEXT),
    )
    labels = (
        tag("label", tag("span", w.t(f"evaluate_page.{name}")), field, class_="ep-field")
        for name, field in zip(("into", "question", "expected_answer"), fields, strict=True)
    )
    add = tag("button", w.t("evaluate_page.add"), type="button", class_="lg-small", data_act="add")
    fold = tag("summary", w.t("evaluate_page.add_fold"))
    yield tag("details", fold, tag("div", *labels, tag("div", add), class_="ep-add"), class_="ep-how", id="ep-add")
    file = tag("input", type="file", accept=".jsonl,.json,.txt", data_most=MAX_BYTES,
               aria_label=w.t("evaluate_page.bring"))  # fmt: skip
    yield tag("label", file, w.t("evaluate_page.bring"), class_="ep-bring")


def _listed(one: TestSet, bases: Options, is_open: bool, w: Wording) -> Html:
    """Return a set with its buttons, and its questions if it is open. bases: the models whose runs may be tested."""
    opens = tag("button", set_name(one, w), type="button", class_="ep-set", data_set="set", data_value=one.name,
                aria_expanded=str(is_open).lower())  # fmt: skip
    name = set_name(one, w)
    export = tag("a", w.t("evaluate_page.export"), href=address(one.name, w.language, TESTS), class_="lg-link",
                 download=f"{one.name}.jsonl", aria_label=w.t("evaluate_page.export_named", name=name))  # fmt: skip
    delete = tag("button", icon("trash"), type="button", class_="ep-icon", data_act="delete", data_name=one.name,
                 aria_label=w.t("evaluate_page.delete", name=name), title=w.t("evaluate_page.delete", name=name),
                 data_sure=w.t("evaluate_page.sure", name=name))  # fmt: skip
    rows = None
    if is_open:
        more = len(one.prompts) - SHOWN
        listed = (_question(one, place, prompt, w) for place, prompt in enumerate(one.prompts[:SHOWN]))
        rest = tag("li", w.t("evaluate_page.more", count=more)) if more > 0 else None
        known = bases if one.base in [value for _, value in bases] else [*bases, (one.base, one.base)]
        base = select("base", w.t("evaluate_page.base"), known, one.base, one.name, data_act="base", data_name=one.name)
        questions = tag("ol", *listed, rest, class_="ep-questions")
        rows = tag("div", base, questions, class_="ep-opened", id=f"ep-opened-{one.name}")
    return tag("li", tag("div", opens, export, delete, class_="ep-line"), rows, id=f"ep-set-{one.name}")


def _question(one: TestSet, place: int, prompt: Prompt, w: Wording) -> Html:
    """Return a set's question number `place` with its expected answer and the button that removes it."""
    expected = tag("span", prompt.expected, class_="ev-why", dir="auto") if prompt.expected else None
    remove = tag("button", icon("trash"), type="button", class_="ep-icon", data_act="remove", data_name=one.name,
                 data_at=place, aria_label=w.t("evaluate_page.remove", number=place + 1),
                 title=w.t("evaluate_page.remove", number=place + 1))  # fmt: skip
    return tag("li", tag("span", tag("span", prompt.question[:1000], dir="auto"), expected), remove)


def imported(workspace: Workspace, request: JsonObject) -> TestSet:
    """Keep the set in a file of the browser under a title that no other has, and return it. request: name, size and
    text, which is None if the file is too large or not UTF-8. Raises ChatError."""
    name, size, text = (request.get(key) for key in ("name", "size", "text"))
    name = names.display_name(Path(str(name).replace("\\", "/")).name) or "set.jsonl"
    if isinstance(size, int) and size > MAX_BYTES:
        raise ChatError("compare.too_large", file=name, found=size, most=MAX_BYTES)
    if not isinstance(text, str):
        raise ChatError("compare.not_utf8", file=name)
    suffix = Path(name).suffix.lower()
    with tempfile.TemporaryDirectory() as folder:
        # Not under its own name, which this system may not allow
        path = Path(folder) / f"set{suffix if suffix in ('.json', '.txt') else '.jsonl'}"
        path.write_text(text, "utf-8", errors="replace", newline="")
        try:
            made = sets.read_file(path)
        except ChatError as error:
            params = {key: name if value == path.name else value for key, value in error.message.params.items()}
            raise ChatError(error.message.key, **params) from None
    title = Path(name).stem if made.title == path.stem else made.title
    others = {one.title: one.fingerprint for one in every_set(workspace)}
    free = (f"{title} ({number})" if number > 1 else title for number in range(1, len(others) + 2))
    title = next(each for each in free if others.get(each) in (None, made.fingerprint))  # nobody's set is replaced
    return sets.save(workspace, made.model_copy(update={"title": title}))
