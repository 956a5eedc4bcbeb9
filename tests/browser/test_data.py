"""The Data page in a browser: a set is edited, mended by a button, undone, parted in two, and taken home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.chat import corrections
from core.data.store import DatasetStore
from core.presets import PRESETS
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import trained

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.gate
@pytest.mark.parametrize(
    ("path", "viewport", "tab", "next_rows", "edited"),
    [
        ("/?lang=en", kit.DESKTOP, "Data", "Page 2: 5 rows", "Saved as version 2"),
        pytest.param("/?lang=zh", kit.PHONE, "数据", "第 2 页：5 行", "已保存为版本 2", marks=pytest.mark.full),
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
    next_rows: str,
    edited: str,
) -> None:
    rows = [
        {"question": f"What is number {i}?", "answer": f"It is the number {i}, said in words."} for i in range(1, 26)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:3]]), "utf-8")
    DatasetStore(workspace.datasets, PRESETS, workspace.library_folders).import_file(tmp_path / "mine.jsonl", "mine")
    page, watch = kit.open_page(chrome, app, path, viewport=viewport)
    kit.go_to_tab(page, tab)
    kit.choose(page, "#data-sets", "mine")
    sets = page.locator("#data-sets label").count()
    kit.expect(page.locator("#data-rows label")).to_have_count(20)
    kit.choose(page, "#data-show", "repeated")
    kit.expect(page.locator("#data-rows label")).to_have_count(3)
    page.locator("#data-mend-0", has_text="3").click()
    kit.expect(page.locator("#data-show input[value=all]")).to_be_checked()  # none is repeated any more
    page.locator("#data-next").click()
    kit.expect(page.locator("#data-place")).to_contain_text(next_rows)  # 25 rows are left of 28
    kit.choose(page, "#data-rows", "21")
    kit.expect(page.locator("#data-row-first textarea")).to_have_value("What is number 21?")
    page.locator("#data-row-second textarea").fill("Twenty-one <b>it</b> is.")
    page.mouse.move(0, 0)  # the colour of a button under it is not asked for
    kit.nothing_found(page)
    page.locator("#data-row-save").click()
    kit.expect(page.locator("#data-notice")).to_contain_text(edited)
    kit.expect(page.locator("#data-rows label", has_text="<b>it</b>")).to_have_count(1)
    kit.expect(page.locator("#data-export")).to_have_css("padding-left", "0px")  # gradio's links are as wide as buttons
    with page.expect_download() as download:
        page.locator("#data-export").click()
    taken = Path(download.value.path()).read_text("utf-8").splitlines()
    assert len(taken) == 25 and json.loads(taken[20])["messages"][1]["content"] == "Twenty-one <b>it</b> is."
    page.locator("#data-undo").click()
    kit.expect(page.locator("#data-rows label", has_text="<b>it</b>")).to_have_count(0)
    page.locator("#data-undo").click()
    kit.expect(page.locator("#data-undo")).to_be_disabled()
    kit.expect(page.locator("#data-place")).to_contain_text("8")
    page.locator("#data-parting > button").click()
    page.locator("#data-others label").first.click()
    kit.nothing_found(page)
    page.locator("#data-held input").fill("8")
    kit.choose(page, "#data-held-unit", "rows")
    page.locator("#data-split").click()
    kit.expect(page.locator("#data-notice")).to_contain_text("8")
    kit.expect(page.locator("#data-sets label")).to_have_count(sets + 2)
    kit.expect(page.locator("#data-place")).to_contain_text("20")  # of 28, the first of the two
    watch.check()
    page.context.close()


def test_an_empty_answer_is_written_where_it_lacks(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
) -> None:
    """The row was opened as a new one, in JSON, without a Delete; saved, it was added, and the bad one stayed."""
    rows = [
        {"question": f"What is number {i}?", "answer": f"It is the number {i}, said in words."} for i in range(1, 6)
    ]
    bad = [{"question": "Empty?", "answer": ""}, {"question": "Another?", "answer": " "}]
    (tmp_path / "broken.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *bad]), "utf-8")
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    id = store.import_file(tmp_path / "broken.jsonl", "broken").id
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.go_to_tab(page, "Data")
    kit.choose(page, "#data-sets", id)
    kit.expect(page.locator("#data-found")).to_contain_text("2 rows are not used for training")
    kit.choose(page, "#data-show", "problems")
    kit.expect(page.locator("#data-rows label")).to_have_count(2)
    kit.choose(page, "#data-rows", "6")
    kit.expect(page.locator("#data-row-title")).to_contain_text("Row 6")
    kit.expect(page.locator("#data-row-title")).to_contain_text("the answer is empty")
    kit.expect(page.locator("#data-row-first textarea")).to_have_value("Empty?")
    kit.expect(page.locator("#data-row-delete")).to_be_visible()
    kit.nothing_found(page)
    page.locator("#data-row-second textarea").fill("No longer.")
    page.locator("#data-row-save").click()
    kit.expect(page.locator("#data-notice")).to_contain_text("1 row rewritten")
    kit.expect(page.locator("#data-rows label")).to_have_count(1)
    kit.choose(page, "#data-rows", "7")
    kit.expect(page.locator("#data-row-title")).to_contain_text("Row 7")
    page.locator("#data-row-delete").click()
    kit.expect(page.locator("#data-notice")).to_contain_text("1 row removed")
    kit.expect(page.locator("#data-show input[value=all]")).to_be_checked()
    kit.expect(page.locator("#data-rows label")).to_have_count(6)
    kit.expect(page.locator("#data-rows label", has_text="No longer.")).to_have_count(1)
    kit.expect(page.locator("#data-found")).to_contain_text("No problems were found")
    assert [number for number, _ in store.rows(id)] == [1, 2, 3, 4, 5, 6]
    watch.check()
    page.context.close()


def test_a_correction_and_a_removed_row_are_in_train_without_a_reload(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    """Chat says that the dataset can be chosen there; its list, and all numbers of rows, were those of the last
    load."""
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.open_step(page, "data")
    for number in range(3):  # as Chat keeps them
        asked = [{"role": "user", "content": f"What is number {number}?"}]
        row = corrections.row(asked, f"It is {number}.", f"No idea, {number}.")
        made, _ = corrections.keep(workspace, store, "base:starter", "Corrections", [row])
    kit.go_to_tab(page, "Chat")
    kit.go_to_tab(page, "Train")
    of_set = page.locator("#data label", has=page.locator(f"input[value='{made.id}']"))
    kit.expect(of_set).to_contain_text("3 rows")
    kit.choose(page, "#data", made.id)
    kit.expect(page.locator("#data-report")).to_contain_text("3 of 3 rows")
    kit.go_to_tab(page, "Data")
    kit.choose(page, "#data-sets", made.id)
    kit.choose(page, "#data-rows", "2")
    page.locator("#data-row-delete").click()
    kit.expect(page.locator("#data-rows label")).to_have_count(2)
    kit.go_to_tab(page, "Train")
    kit.expect(of_set).to_contain_text("2 rows")
    kit.expect(page.locator("#data-report")).to_contain_text("2 of 2 rows")
    kit.expect(page.locator(f"button[data-set='{made.id}']")).to_have_attribute("aria-pressed", "true")
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
        asked = [{"role": "user", "content": f"What is number {number}?"}]
        row = corrections.row(asked, f"Number {number} it is, said in some words.", f"No idea, {number}.")
        made, _ = corrections.keep(workspace, store, f"run:{parent.id}", "Corrections", [row])
    page, watch = kit.open_page(chrome, app, "/?lang=en")
    kit.choose(page, "#data", made.id)
    kit.open_step(page, "data")
    kit.expect(page.locator("#comparing-said")).to_contain_text("leaves the worse ones out")
    kit.expect(page.locator("#data-report")).not_to_contain_text("train.objective")
    page.locator("#comparing-choose", has_text="prefer the better answer").click()
    kit.expect(page.locator("#comparing-said")).to_contain_text("DPO (preference training): Training compares")
    kit.expect(page.locator("#comparing-said")).to_contain_text("not from “my tuned one”")
    kit.expect(page.locator("#data-report")).not_to_contain_text("Not used")
    kit.nothing_found(page)
    kit.open_step(page, "plan")
    kit.expect(page.locator("#reset-settings")).to_contain_text("1 changed by you")
    with kit.made_by_start(page, workspace) as run:
        assert run.recipe().train.objective == "dpo" and run.recipe().data.source == made.id
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.open_step(page, "data")
    kit.expect(page.locator("#comparing-said")).to_contain_text("do not suit it")
    page.locator("#comparing-choose", has_text="good answers only").click()
    kit.expect(page.locator("#comparing")).to_be_hidden()
    kit.open_step(page, "plan")
    kit.expect(page.locator("#method")).to_be_visible()
    kit.expect(page.locator("#reset-settings")).to_be_hidden()
    kit.expect(page.locator("#start")).to_be_enabled()
    watch.check()
    page.context.close()
