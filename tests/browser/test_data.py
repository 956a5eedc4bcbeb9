"""The Data page in a browser: a set is added, edited, mended by a button, undone, parted in two, exported, deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.chat import corrections
from core.data.sets import working
from core.data.store import DatasetStore
from core.presets import PRESETS
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import trained

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def numbered_rows(number: int) -> list[dict[str, str]]:
    return [
        {"question": f"What is number {i}?", "answer": f"It is the number {i}, said in words."}
        for i in range(1, number + 1)
    ]


def added(workspace: Workspace, tmp_path: Path, rows: list[dict[str, str]], name: str = "mine") -> str:
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    return store.import_file(tmp_path / f"{name}.jsonl", name).id


def row(page: Page, place: int) -> Locator:
    """The row at a place of the table, from 1 on, once its words are there."""
    return page.locator(f".dt-row[aria-rowindex='{place + 1}']:not(.dt-waits)")


def reached(page: Page, place: int) -> Locator:
    """The same, scrolled to."""
    scroll = """(part, place) => {
        const height = parseFloat(getComputedStyle(part.closest(".dt")).getPropertyValue("--dt-row"));
        part.scrollTop = (place - 1) * height;
    }"""
    page.locator(".dt-scroll").evaluate(scroll, place)
    return row(page, place)


def edit(page: Page, place: int, column: str, text: str) -> None:
    """As a person does: a click on a cell, other words, Enter."""
    reached(page, place).locator(f".dt-{column}").click()
    page.locator(".dt-editor").fill(text)
    page.locator(".dt-editor").press("Enter")
    kit.expect(page.locator(".dt-editor")).to_have_count(0)


@pytest.mark.gate
@pytest.mark.parametrize(
    ("path", "viewport", "tab", "left", "edited"),
    [
        ("/?lang=en", kit.DESKTOP, "Data", "25 rows", "Saved as version 2"),
        pytest.param("/?lang=zh", kit.PHONE, "数据", "25 行", "已保存为版本 2", marks=pytest.mark.full),
    ],
    ids=["en-desktop", "zh-phone"],
)
def test_a_set_is_mended_edited_undone_and_taken_home(
    chrome: Browser,
    app: kit.App,
    workspace: Workspace,
    tmp_path: Path,
    path: str,
    viewport: dict,
    tab: str,
    left: str,
    edited: str,
) -> None:
    rows = numbered_rows(25)
    added(workspace, tmp_path, [*rows, *rows[:3]])
    page, watch = kit.open_page(chrome, app, path, viewport=viewport)
    kit.go_to_tab(page, tab)
    kit.expect(page.locator("#data-sets input:checked")).to_have_value("mine")  # the newest of one's own is opened
    sets = page.locator("#data-sets label").count()
    page.locator("#data-show button", has_text="3").click()
    kit.expect(page.locator(".dt-row")).to_have_count(3)
    page.locator("button[data-mend*=repeated]", has_text="3").click()
    kit.expect(page.locator("#data-place")).to_have_text(left)  # none is repeated any more: all of the others
    if viewport == kit.DESKTOP:
        edit(page, 21, "answer", "Twenty-one <b>it</b> is.")
        notice = page.locator("#data-message")
    else:  # a row is opened over the table, whole
        reached(page, 21).locator(".dt-answer").click()
        kit.expect(page.locator("#data-row-first textarea")).to_have_value("What is number 21?")
        kit.expect(page.locator("#data-row-second textarea")).to_be_in_viewport()  # it stood beside the window once
        page.locator("#data-row-second textarea").fill("Twenty-one <b>it</b> is.")
        kit.assert_accessible(page)
        page.locator("#data-row-save").click()
        notice = page.locator("#data-notice")
    kit.expect(notice).to_contain_text(edited)
    kit.expect(page.locator(".dt-row", has_text="<b>it</b>")).to_have_count(1)
    page.mouse.move(0, 0)  # the colour of a button under it is not asked for
    kit.assert_accessible(page)
    with page.expect_download() as download:
        page.locator("#data-export").click()
    taken = Path(download.value.path()).read_text("utf-8").splitlines()
    assert len(taken) == 25 and json.loads(taken[20])["messages"][1]["content"] == "Twenty-one <b>it</b> is."
    page.locator("#data-undo").click()
    kit.expect(page.locator(".dt-row", has_text="<b>it</b>")).to_have_count(0)
    page.locator("#data-undo").click()
    kit.expect(page.locator("#data-undo")).to_be_disabled()
    kit.expect(page.locator("#data-place")).to_contain_text("28")
    page.locator("#data-parting > button").click()
    page.locator("#data-others label").first.click()
    page.locator("#data-held input").fill("8")
    kit.choose(page, "#data-held-unit", "rows")
    page.locator("#data-split").click()
    kit.expect(page.locator("#data-notice")).to_contain_text("8")
    kit.expect(page.locator("#data-sets label")).to_have_count(sets + 2)
    assert page.locator("#data-sets").evaluate("list => list.scrollWidth <= list.clientWidth"), "one below the other"
    kit.expect(page.locator("#data-place")).to_contain_text("20")  # of 28, the first of the two
    watch.check()
    page.context.close()


def test_an_empty_answer_is_written_where_it_lacks(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
) -> None:
    """The row was opened as a new one, in JSON, without a Delete; saved, it was added, and the bad one stayed."""
    bad = [{"question": "Empty?", "answer": ""}, {"question": "Another?", "answer": " "}]
    id = added(workspace, tmp_path, [*numbered_rows(5), *bad])
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.go_to_tab(page, "Data")
    kit.expect(page.locator("#data-found")).to_contain_text("2 rows are not used for training")
    page.locator("#data-found button[data-show=problems]").click()
    kit.expect(page.locator(".dt-row")).to_have_count(2)
    kit.expect(row(page, 1)).to_contain_text("the answer is empty")
    edit(page, 1, "answer", "No longer.")
    kit.expect(page.locator("#data-message")).to_contain_text("1 row rewritten")
    kit.expect(page.locator(".dt-row")).to_have_count(1)
    row(page, 1).locator(".dt-open button").click()
    kit.expect(page.locator("#data-row-title")).to_contain_text("Row 7")
    kit.expect(page.locator("#data-row-title")).to_contain_text("the answer is empty")
    kit.assert_accessible(page)
    page.locator("#data-row-delete").click()
    kit.expect(page.locator("#data-notice")).to_contain_text("1 row removed")
    kit.expect(page.locator("#data-place")).to_have_text("6 rows")
    kit.expect(page.locator(".dt-row", has_text="No longer.")).to_have_count(1)
    kit.expect(page.locator("#data-found")).to_contain_text("No problems were found")
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    assert [number for number, _ in store.rows(id)] == [1, 2, 3, 4, 5, 6]
    watch.check()
    page.context.close()


def test_a_set_is_added_used_and_deleted_on_its_own_page(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
) -> None:
    """Files were added in Train alone, and deleted under Settings."""
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(each) + "\n" for each in numbered_rows(4)), "utf-8")
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.go_to_tab(page, "Data")
    kit.expect(page.locator("#data-head")).to_contain_text("sample")  # the first one is open
    kit.expect(page.locator("#data-delete")).to_be_hidden()
    page.locator("#data-file input[type=file]").set_input_files(tmp_path / "faq.jsonl")
    kit.expect(page.locator("#data-notice")).to_contain_text("“faq” was added")
    kit.expect(page.locator("#data-head h2")).to_have_text("faq")
    kit.expect(page.locator(".dt-row")).to_have_count(4)
    page.locator("#data-use").click()
    kit.expect(page.locator("button[data-set=faq]")).to_have_attribute("aria-pressed", "true")
    kit.expect(page.locator("#start-summary")).to_contain_text("4 rows")
    kit.go_to_tab(page, "Data")
    with kit.accepting_dialog(page):
        page.locator("#data-delete").click()
    kit.expect(page.locator("#data-notice")).to_contain_text("was deleted")
    kit.expect(page.locator("#data-sets input[value=faq]")).to_have_count(0)
    kit.expect(page.locator("#data-head")).to_contain_text("sample")
    watch.check()
    page.context.close()


def test_a_long_list_of_sets_is_searched(chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path) -> None:
    for count, name in enumerate(("one", "two", "three", "four", "five"), 2):
        added(workspace, tmp_path, numbered_rows(count), name)
    page, watch = kit.open_page(chrome, app, viewport=kit.PHONE)
    kit.go_to_tab(page, "Data")
    find, listed = page.get_by_role("searchbox", name="Search datasets"), page.locator("#data-sets label:visible")
    kit.expect(find).to_be_visible()
    for sought, left in (("THRE", 1), ('"', 0), ("", 9), ("f", 3)):  # five, four, Facts about the Kettlewisp
        find.fill(sought)
        kit.expect(listed).to_have_count(left)
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    watch.check()
    page.context.close()


def test_the_table_is_gone_through_chosen_in_and_edited_by_keys_alone(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
) -> None:
    added(workspace, tmp_path, numbered_rows(300))
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.go_to_tab(page, "Data")
    kit.expect(row(page, 1)).to_be_visible()
    page.locator("#data-search").focus()
    for _ in range(5):  # add a row, the box of all rows, the first question: nothing that is disabled
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('dt-cell')"):
            break
    focused = page.locator(".dt-row :focus")

    def at(number: int) -> None:
        kit.expect(page.locator(".dt-row:has(:focus) .dt-pick span")).to_have_text(str(number))

    at(1)
    page.keyboard.press("Control+End")
    at(300)
    page.keyboard.press("ArrowUp")
    at(299)
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowDown")
    at(2)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    kit.expect(page.locator(".dt-editor")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("Two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    kit.expect(page.locator("#data-message")).to_contain_text("Saved as version 1")
    kit.expect(row(page, 2).locator(".dt-answer")).to_have_text("Two lines")
    at(2)
    page.keyboard.press("Enter")
    kit.expect(page.locator(".dt-editor")).to_have_value("Two\nlines")
    page.keyboard.type("no")
    page.keyboard.press("Escape")
    kit.expect(row(page, 2).locator(".dt-answer")).to_have_text("Two lines")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Space")
    kit.expect(page.locator(".dt-chosen strong")).to_have_text("3 chosen")
    kit.assert_accessible(page)
    page.keyboard.press("Delete")
    kit.expect(page.locator("#data-place")).to_have_text("297 rows")
    kit.expect(focused).to_have_count(1)
    page.keyboard.press("Control+z")
    kit.expect(page.locator("#data-place")).to_have_text("300 rows")
    page.keyboard.press("Control+Shift+z")
    kit.expect(page.locator("#data-place")).to_have_text("297 rows")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    kit.expect(page.locator("#data-row")).to_be_focused()
    watch.check()
    page.context.close()


def test_a_click_elsewhere_saves_a_cell_and_what_is_refused_stays_in_its_box(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
) -> None:
    id = added(workspace, tmp_path, numbered_rows(5))
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.go_to_tab(page, "Data")
    row(page, 1).locator(".dt-answer").click()
    page.locator(".dt-editor").fill("One.")
    row(page, 3).locator(".dt-question").click()
    kit.expect(page.locator(".dt-editor")).to_have_value("What is number 3?")
    kit.expect(row(page, 1)).to_contain_text("One.")
    page.locator(".dt-editor").fill(" ")
    row(page, 5).locator(".dt-answer").click()
    kit.expect(page.locator("#data-message")).to_contain_text("is empty")
    kit.expect(page.locator(".dt-editor")).to_have_value(" ")
    kit.expect(page.locator(".dt-editor")).to_be_focused()
    kit.assert_accessible(page)
    page.locator(".dt-editor").press("Escape")
    kit.expect(row(page, 3)).to_contain_text("What is number 3?")
    row(page, 5).locator(".dt-answer").click()
    kit.choose(page, "#data-sets", "sample:pirate_answers")
    kit.expect(page.locator(".dt-editor")).to_have_count(0)
    kit.expect(row(page, 1)).to_contain_text("capital of Italy")
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    assert [example.messages[-1].content for _, example in store.rows(id)][0] == "One."
    assert store.get(id).version == 1
    watch.check()
    page.context.close()


def test_of_many_rows_those_in_view_are_fetched_and_drawn_alone(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
) -> None:
    added(workspace, tmp_path, [*numbered_rows(4000), {"question": "<img src=x onerror=alert(1)>", "answer": "&amp;"}])
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    sent: list[dict] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if "component_server" in r.url else None)
    kit.go_to_tab(page, "Data")
    kit.expect(row(page, 1)).to_be_visible()
    page.locator(".dt-scroll").evaluate("part => { part.scrollTop = part.scrollHeight; }")
    kit.expect(row(page, 4001).locator(".dt-question")).to_have_text("<img src=x onerror=alert(1)>")
    kit.expect(row(page, 4001).locator(".dt-answer")).to_have_text("&amp;")
    assert page.locator(".dt-row").count() < 60 and page.locator(".dt-row img").count() == 0
    asked_for = [each["data"] for each in sent if each["fn_name"] == "rows"]
    assert len(asked_for) < 8 and all(each["count"] <= 100 for each in asked_for)
    kit.expect(page.locator("[role=grid]")).to_have_attribute("aria-rowcount", "4002")
    page.locator("#data-search").fill("NUMBER 123")
    kit.expect(page.locator("#data-place")).to_have_text("11 of 4,001 rows")
    kit.expect(row(page, 11)).to_contain_text("What is number 1239?")
    page.locator("#data-search").fill("no such thing")
    kit.expect(page.locator(".dt-empty")).to_contain_text("No matching rows")
    kit.assert_accessible(page)
    page.locator(".dt-empty button").click()
    kit.expect(page.locator("#data-place")).to_have_text("4,001 rows")
    watch.check()
    page.context.close()


def test_the_table_says_that_the_app_is_gone_and_keeps_what_was_written(chrome: Browser, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "ws")
    id = added(workspace, tmp_path, numbered_rows(3))
    app = kit.start_app(workspace.root, **kit.ENGLISH)
    try:
        page, _ = kit.open_page(chrome, app)
        kit.go_to_tab(page, "Data")
        row(page, 2).locator(".dt-answer").click()
        page.locator(".dt-editor").fill("Written, and not yet saved.")
        app.stop()
        page.locator(".dt-editor").press("Enter")
        kit.expect(page.locator("#data-message")).to_contain_text("does not answer")
        kit.expect(page.locator(".dt-editor")).to_have_value("Written, and not yet saved.")
        # Its row is the first of the table now; the text stood in the second, which is another.
        working.edit_rows(DatasetStore(workspace.datasets, PRESETS, workspace.library_folders), id, remove=[1])
        app = kit.start_app(workspace.root, app.port, **kit.ENGLISH)
        # gradio does so itself within two seconds, where it saw that the app was gone: page.reload() would be aborted
        page.evaluate("setTimeout(() => location.reload())")
        kit.expect(row(page, 1).locator(".dt-editor")).to_have_value("Written, and not yet saved.")
        page.locator(".dt-editor").press("Enter")
        kit.expect(page.locator("#data-message")).to_contain_text("Saved as version 2")
        kit.expect(row(page, 1)).to_contain_text("What is number 2?")
        page.context.close()
    finally:
        app.stop()


def test_a_correction_and_a_removed_row_are_in_train_without_a_reload(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    """Chat says that the dataset can be chosen there; its list, and all numbers of rows, were those of the last
    load."""
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.open_step(page, "data")
    for number in range(3):  # as Chat keeps them
        turns = [{"role": "user", "content": f"What is number {number}?"}]
        corrected = corrections.row(turns, f"It is {number}.", f"No idea, {number}.")
        made, _ = corrections.keep(workspace, store, "base:starter", "Corrections", [corrected])
    kit.go_to_tab(page, "Chat")
    kit.go_to_tab(page, "Train")
    of_set = page.locator(f"button[data-set='{made.id}']")
    kit.expect(of_set).to_contain_text("3 rows")
    kit.choose(page, "#data", made.id)
    kit.open_step(page, "data")
    kit.expect(page.locator("#data-report")).to_contain_text("3 of 3 rows")
    kit.go_to_tab(page, "Data")
    row(page, 2).locator("input").click()
    page.locator("#data-delete-rows").click()
    kit.expect(page.locator("#data-place")).to_have_text("2 rows")
    kit.go_to_tab(page, "Train")
    kit.expect(of_set).to_contain_text("2 rows")
    kit.expect(page.locator("#data-report")).to_contain_text("2 of 2 rows")
    kit.expect(page.locator(f"button[data-set='{made.id}']")).to_have_attribute("aria-pressed", "true")
    watch.check()
    page.context.close()


def test_training_by_rewards_is_offered_where_a_rule_can_judge_the_answers_and_starts_with_its_judge(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.choose(page, "#data", "sample:shop_messages")
    kit.open_step(page, "data")
    kit.expect(page.locator("#comparing-message")).to_contain_text("A rule can judge these answers (Label)")
    page.locator("#comparing-choose", has_text="Train by rewards").click()
    kit.expect(page.locator("#comparing-message")).to_contain_text("writes 8 answers to each question")
    kit.open_step(page, "plan")
    kit.expect(page.locator("#reset-settings")).to_contain_text("2 changed by you")
    kit.expect(page.locator("#setting-objective-field")).to_have_value("grpo")
    kit.assert_accessible(page)
    with kit.made_by_start(page, workspace) as run:
        recipe = run.recipe()
        assert recipe.train.objective == "grpo" and recipe.rewards and recipe.rewards.judges[0]["kind"] == "label"
    kit.open_step(page, "data")
    page.locator("#comparing-choose", has_text="Imitate the answers instead").click()
    kit.expect(page.locator("#comparing-choose")).to_contain_text("Train by rewards")
    watch.check()
    page.context.close()


def test_preference_training_is_offered_in_words_where_rows_have_a_worse_answer(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    """It was to be found by "set train.objective to dpo", the worse answers stood under "Not used" once it was chosen,
    and nothing said that it begins at the base model."""
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    parent = trained(workspace, "my tuned one")
    for number in range(24):
        turns = [{"role": "user", "content": f"What is number {number}?"}]
        row = corrections.row(turns, f"Number {number} it is, said in some words.", f"No idea, {number}.")
        made, _ = corrections.keep(workspace, store, f"run:{parent.id}", "Corrections", [row])
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.choose(page, "#data", made.id)
    kit.open_step(page, "data")
    kit.expect(page.locator("#comparing-message")).to_contain_text("leaves the worse ones out")
    kit.expect(page.locator("#data-report")).not_to_contain_text("train.objective")
    page.locator("#comparing-choose", has_text="prefer the better answer").click()
    kit.expect(page.locator("#comparing-message")).to_contain_text("DPO (preference training): Training compares")
    kit.expect(page.locator("#comparing-message")).to_contain_text("not from “my tuned one”")
    kit.expect(page.locator("#data-report")).not_to_contain_text("Not used")
    kit.assert_accessible(page)
    kit.open_step(page, "plan")
    kit.expect(page.locator("#reset-settings")).to_contain_text("1 changed by you")
    with kit.made_by_start(page, workspace) as run:
        assert run.recipe().train.objective == "dpo" and run.recipe().data.source == made.id
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.open_step(page, "data")
    kit.expect(page.locator("#comparing-message")).to_contain_text("do not suit it")
    page.locator("#comparing-choose", has_text="good answers only").click()
    kit.expect(page.locator("#comparing")).to_be_hidden()
    kit.open_step(page, "plan")
    kit.expect(page.locator("#method")).to_be_visible()
    kit.expect(page.locator("#reset-settings")).to_be_hidden()
    kit.expect(page.locator("#start")).to_be_enabled()
    watch.check()
    page.context.close()
