"""Data as people have it, from the file to Start: a chat in the voice that is chosen, a table whose columns a person
says."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.endless import LARGE_BYTES
from tests.kit.office import zipped
from tests.kit.waits import wait_until
from tools.made_up_chat import made_up
from webui.kit.wording import Wording

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TABLE = "datum;kundin;wir;notiz\n" + "".join(
    f"2025-03-{day:02};Wo ist mein Paket Nummer {day}?;Es kommt am Dienstag bei Ihnen an, versprochen.;eilt\n"
    for day in range(1, 25)
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, full: bool) -> Iterator[kit.App]:
    """With a library that has a tiny model, whose tokenizer shows the rows; a file that is called endless never
    ends."""
    workspace = tmp_path_factory.mktemp("reading")
    (workspace / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    languages = {"LORA_GARAGE_LANGUAGES": "en,zh,de"} if full else kit.ENGLISH
    started = kit.start_app(Workspace.open(workspace).root, module="tests.kit.endless", **languages)
    yield started
    started.stop()


def opened(chrome: Browser, app: kit.App, path: str = "/?lang=en", **options: Any) -> tuple[Page, kit.Watch]:
    """With the tiny model chosen."""
    page, watch = kit.open_page(chrome, app, path, **options)
    kit.unfold(page, "#step-model")
    page.locator("#model input").fill("library:tiny")
    page.locator("#model input").press("Enter")
    return page, watch


def upload(page: Page, file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    page.locator("#file input[type=file]").set_input_files(file)


def readers(app: kit.App) -> list[int]:
    """Processes that read a file for it."""
    pids = []
    for child in psutil.Process(app.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            pids += [child.pid] if "tests.kit.endless" in child.cmdline() else []
    return pids


def pick(page: Page, dropdown: str, option: str) -> None:
    page.locator(f"{dropdown} input").click()
    page.get_by_role("option", name=option).first.click()


def cards(page: Page) -> list[str]:
    """The datasets that the page offers."""
    return page.locator("#start-cards button").evaluate_all("all => all.map(each => each.dataset.set)")


def start_two_steps(page: Page, app: kit.App) -> Any:
    """What the recipe of the run that came of it says of its data."""
    kit.plan_two_steps(page, 64, re.compile("(共 )?2 (optimizer steps|个优化步)"))
    with kit.made_by_start(page, Workspace.open(app.workspace)) as run:
        return run.recipe().data


def test_a_chat_is_learned_in_the_voice_that_is_chosen(chrome: Browser, app: kit.App, tmp_path: Path) -> None:
    page, watch = opened(chrome, app)
    upload(page, tmp_path / "WhatsApp Chat with Maria Lopez.txt", "\n".join(made_up(120)))
    about, row = page.locator("#chat-about"), page.locator("#learned-row .lg-row-text")
    kit.expect(about).to_contain_text("No person was chosen, so it is Finn")
    kit.expect(row).to_contain_text("chief")
    pick(page, "#chat-voice", "Maria Lopez")
    kit.expect(about).not_to_contain_text("No person was chosen")
    kit.expect(row.locator("mark.lg-learned").first).not_to_contain_text("chief")
    pick(page, "#chat-gap", "0.5 h — ")
    kit.expect(page.locator("#data-report")).to_contain_text("A gap of 0.5 hours")
    kit.assert_accessible(page, "chat-choices")
    data = start_two_steps(page, app)
    assert (data.voice, data.gap_hours, data.pseudonyms) == ("Maria Lopez", 0.5, True)
    kit.open_step(page, "data")
    pick(page, "#chat-voice", "Finn")
    kit.expect(page.locator("#data-report")).to_contain_text("answer as Finn")
    recipe = Runs(Workspace.open(app.workspace)).list()[0].path / "recipe.yaml"
    page.locator("#file input[type=file]").set_input_files(recipe)
    kit.expect(page.locator("#data-report")).to_contain_text("answer as Maria Lopez")
    kit.expect(page.locator("#chat-voice input")).to_have_value(re.compile("Maria Lopez"))
    page.locator("#brought-kept").click()
    kit.expect(page.locator("#chat-voice input")).to_have_value(re.compile("Finn"))
    kit.expect(page.locator("#brought")).to_be_hidden()
    watch.check()
    page.context.close()


@pytest.mark.parametrize("size", [pytest.param(0, marks=pytest.mark.full), LARGE_BYTES], ids=["small", "large"])
def test_a_file_that_is_being_read_is_cancelled_and_nothing_is_left_of_it(
    chrome: Browser, app: kit.App, tmp_path: Path, size: int
) -> None:
    """A large one is read by a process of its own, which ends too."""
    page, watch = opened(chrome, app)
    kit.choose(page, "#data", "sample:pirate_answers")
    before = (
        cards(page),
        sorted(app.workspace.joinpath("datasets").glob("[!.]*")),
    )
    at_rest = readers(app)
    upload(page, tmp_path / "endless.csv", "question,answer\nWhy?,So.\n" + "How?,Thus.\n" * (size // 10))
    kit.expect(page.locator("#import-progress")).to_contain_text("rows read so far")
    assert len(readers(app)) == len(at_rest) + (size > 0)
    kit.assert_accessible(page, "import")
    page.locator("#import-cancel").click()
    kit.expect(page.locator("#file-notice")).to_contain_text("Cancelled. Nothing was added")
    kit.expect(page.locator("#import")).to_be_hidden()
    kit.expect(page.locator("button[data-set][aria-pressed=true]")).to_have_attribute(
        "data-set", "sample:pirate_answers"
    )
    assert before == (
        cards(page),
        sorted(app.workspace.joinpath("datasets").glob("[!.]*")),
    )
    wait_until(lambda: readers(app) == at_rest)
    left = [
        path.name
        for path in app.workspace.joinpath("datasets").rglob("*")
        if path.name == "importing" or path.name.startswith(".rows-")
    ]
    assert not left
    upload(page, tmp_path / "short.csv", "question,answer\nWhy?,So.\n")
    kit.expect(page.locator("#data-report")).to_contain_text("1 of 1")
    watch.check()
    page.context.close()


def test_a_file_dropped_while_another_is_read_waits_for_it_and_is_read_too(
    chrome: Browser, app: kit.App, tmp_path: Path
) -> None:
    page, watch = opened(chrome, app)
    upload(page, tmp_path / "endless.csv", "question,answer\nWhy?,So.\n" + "How?,Thus.\n" * (LARGE_BYTES // 10))
    kit.expect(page.locator("#import-progress")).to_contain_text("rows read so far")
    upload(page, tmp_path / "afterwards.csv", "question,answer\nWhen?,Afterwards.\n")
    kit.expect(page.locator("#file")).not_to_contain_text("afterwards")  # it was taken
    kit.expect(page.locator("#import-progress")).to_contain_text("rows read so far")
    page.locator("#import-cancel").click()
    kit.expect(page.locator("#data-report")).to_contain_text("1 of 1")
    kit.expect(page.locator("#import")).to_be_hidden()
    kit.expect(page.locator("button[data-set]", has_text="afterwards")).to_have_count(1)
    kit.expect(page.locator("button[data-set]", has_text="endless")).to_have_count(0)
    watch.check()
    page.context.close()


@pytest.mark.full
def test_a_table_is_learned_by_the_columns_that_a_person_says(chrome: Browser, app: kit.App, tmp_path: Path) -> None:
    page, watch = opened(chrome, app)
    upload(page, tmp_path / "anfragen.csv", TABLE)
    row = page.locator("#learned-row .lg-row-text")
    kit.expect(page.locator("#first-rows thead")).to_contain_text("kundin")
    kit.expect(page.locator("#column-2 input")).to_have_value("question")
    kit.expect(page.locator("#column-choices")).to_contain_text("guessed: please check")
    pick(page, "#column-4", "context")
    kit.expect(page.locator("#column-choices")).not_to_contain_text("guessed: please check")
    kit.expect(row).to_contain_text("eilt")
    pick(page, "#column-2", "ignore")
    kit.expect(page.locator("#reading-notice")).to_contain_text("cannot be used")
    pick(page, "#column-2", "question")
    kit.expect(page.locator("#reading-notice")).to_be_hidden()
    kit.assert_accessible(page, "column-choices")
    data = start_two_steps(page, app)
    assert {name: role for name, role in data.columns.items() if role != "ignore"} == {
        "kundin": "question",
        "wir": "answer",
        "notiz": "context",
    }
    watch.check()
    page.context.close()


@pytest.mark.gate
@pytest.mark.parametrize("language", ["en", *(pytest.param(each, marks=pytest.mark.full) for each in ("zh", "de"))])
def test_which_column_is_the_answer_is_asked_and_chosen_by_a_press(
    language: str, chrome: Browser, app: kit.App, tmp_path: Path
) -> None:
    """Seen: of `text` and a category the text alone was trained, without a word."""
    w = Wording(language)
    page, watch = opened(chrome, app, f"/?lang={language}", viewport=kit.PHONE if language == "de" else None)
    rows = "".join(f"Wo ist mein Paket {i}? ({language}),{('Versand', 'Zahlung')[i % 2]}\n" for i in range(24))
    upload(page, tmp_path / f"mails-{language}.csv", "text,category\n" + rows)
    kit.expect(page.locator("#start")).to_have_text(w.t("wizard.start_missing_answer"))
    page.locator("#start").click()
    kit.expect(page.locator("#start-notice")).to_contain_text(w.t("wizard.missing_answer"))
    readings = page.locator("#readings .lg-reading")
    kit.expect(page.locator("#readings")).to_be_focused()  # and in view: on a phone it stood two windows further down
    kit.expect(page.locator("#readings strong")).to_be_in_viewport()
    kit.expect(readings).to_have_count(2)
    kit.expect(readings.first).to_contain_text(w.t("reading_choices.answer_is", column="category"))
    kit.expect(readings.first).to_contain_text("Versand")
    kit.assert_accessible(page, f"readings-{language}")
    assert kit.overflow(page) <= 0
    readings.first.locator("button").click()
    kit.expect(readings).to_have_count(0)
    kit.expect(page.locator("#column-2 input")).to_have_value(w.t("reading_choices.role_answer"))
    kit.expect(page.locator("#learned-row .lg-learned").first).to_contain_text(re.compile("Versand|Zahlung"))
    kit.expect(page.locator("#start")).not_to_have_text(w.t("wizard.start_missing_answer"))
    kit.expect(page.locator("#start-notice")).to_be_hidden()
    watch.check()
    page.context.close()


def test_files_of_which_nothing_shows_the_answer_are_asked_about_with_rows_of_each(
    chrome: Browser, app: kit.App, tmp_path: Path
) -> None:
    """Seen: the page said “Error: zip” and showed no reading."""
    page, watch = opened(chrome, app)
    files = {f"{name}.csv": f"{name} one,{name} two\n" + f"Rain on the {name} roof,A lamp in the {name}\n" * 2
        for name in ("old", "new")}  # fmt: skip
    (tmp_path / "two.zip").write_bytes(zipped(files))
    page.locator("#file input[type=file]").set_input_files(tmp_path / "two.zip")
    readings = page.locator("#readings .lg-reading")
    kit.expect(readings).to_have_count(4)
    kit.expect(readings.first).to_contain_text("A lamp in the new")
    kit.expect(readings.nth(1)).to_contain_text("A lamp in the old")
    watch.check()
    page.context.close()


@pytest.mark.full
@pytest.mark.parametrize("language", ["en", "zh", "de"])
def test_lines_that_are_no_running_text_are_asked_about_and_taken_by_a_press(
    language: str, chrome: Browser, app: kit.App, tmp_path: Path
) -> None:
    """Seen: scripts, entries with marks and lists were trained as prose, without a word."""
    w = Wording(language)
    page, watch = opened(chrome, app, f"/?lang={language}", viewport=kit.PHONE if language == "de" else None)
    upload(page, tmp_path / f"bot-{language}.txt", "".join(f"hello {n} \\ I am here, {language}\n" for n in range(24)))
    kit.expect(page.locator("#start")).to_have_text(w.t("wizard.start_missing_answer"))
    readings = page.locator("#readings .lg-reading")
    kit.expect(readings).to_have_count(1)
    kit.expect(readings.first).to_contain_text(w.t("reading_choices.text_is", column="text"))
    kit.expect(page.locator("#readings")).to_contain_text(w.t("reading_choices.is_right"))
    kit.assert_accessible(page, f"lines-{language}")
    assert kit.overflow(page) <= 0
    readings.first.locator("button").click()
    kit.expect(readings).to_have_count(0)
    kit.expect(page.locator("#start")).not_to_have_text(w.t("wizard.start_missing_answer"))
    watch.check()
    page.context.close()


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True])
def test_both_on_a_phone_in_chinese(dark: bool, chrome: Browser, app: kit.App, tmp_path: Path) -> None:
    page, watch = opened(chrome, app, "/?lang=zh", viewport=kit.PHONE)
    kit.set_dark(page, dark)
    # Bytes of its own: what a person said of others stays with those.
    upload(page, tmp_path / "与 Maria 的聊天.txt", "\n".join(made_up(130 + 10 * dark)))
    kit.expect(page.locator("#chat-about")).to_contain_text("没有指定学谁")
    pick(page, "#chat-voice", "Maria Lopez")
    kit.expect(page.locator("#chat-about")).not_to_contain_text("没有指定学谁")
    assert kit.overflow(page) <= 0
    kit.assert_accessible(page, f"chat-zh-{dark}")
    upload(
        page,
        tmp_path / "anfragen.csv",
        TABLE + f"2025-04-0{1 + dark};Wo ist Paket {30 + dark}?;Es kommt bald bei Ihnen an.;eilt\n",
    )
    pick(page, "#column-4", "上下文")
    kit.expect(page.locator("#learned-row .lg-row-text")).to_contain_text("eilt")
    assert kit.overflow(page) <= 0
    kit.assert_accessible(page, f"columns-zh-{dark}")
    data = start_two_steps(page, app)
    assert data.columns["notiz"] == "context"
    watch.check()
    page.context.close()
