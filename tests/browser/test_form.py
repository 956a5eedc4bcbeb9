"""What a person chose stands, whenever the server answers: the form in a real browser, its calls held back at a gate
(tests/kit/gate).

One app for all. Every test ends with no edit counted that nobody made, and none lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import gate
from tests.kit.runs import trained

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PIRATE, SHOP = "sample:pirate_answers", "sample:shop_messages"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.App]:
    """With a run whose adapter can be trained further."""
    workspace = Workspace.open(tmp_path_factory.mktemp("form") / "workspace")
    trained(workspace, "the parent")
    started = kit.start_app(workspace.root, **kit.ENGLISH)
    yield started
    started.stop()


@pytest.fixture
def opened(chrome: Browser, app: kit.App, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page whose looks wait at the gate from the first one on, where the test is marked so by its parameter. Its
    clocks stand still: a look that followed the free RAM, which moves while other tests run, came to the gate beside or
    in place of the one that was meant."""
    context = chrome.new_context(viewport=kit.DESKTOP, locale="en-US")
    context.add_init_script(gate.script("timer", *getattr(request, "param", ())))
    page = context.new_page()
    watch = kit.watch_page(page, app)
    page.goto(app.url + "/?lang=en")
    page.locator("button[data-set]").first.wait_for()
    yield page
    watch.check()
    context.close()


def held(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("opened", [(name,)], indirect=True, ids=["held"])


def setting(page: Page, name: str) -> Locator:
    return page.locator(f"#setting-{name} :is(input, select)")


def plan(page: Page) -> Locator:
    """All that the bar tells: of the plan, its rank and its steps."""
    return page.locator("#start-summary")


def edits(page: Page, count: int) -> None:
    """That so many are counted, in the browser and by the server."""
    if count:
        kit.expect(page.locator("#reset-settings")).to_contain_text(f"{count} changed by you")
    else:
        kit.expect(page.locator("#reset-settings")).to_be_hidden()
    assert page.evaluate("Object.keys(loraGarageForm.sent({explicit: {}, revision: 0})[0].explicit).length") == count


def option(page: Page, group: str, value: object) -> Locator:
    return page.locator(f"{group} input[value='{value}']")


def is_chosen(page: Page, data: str) -> None:
    """By its card, and by the form: the radio is in the page only while the step of the data is open."""
    kit.expect(page.locator("button[data-set][aria-pressed=true]")).to_have_attribute("data-set", data)
    kit.open_step(page, "data")
    kit.expect(option(page, "#data", data)).to_be_checked()


@held("look")
def test_choices_of_the_first_second_stand(opened: Page) -> None:
    """Seen: "changed by you: 4" on a new page, and 16 rows a step for 5."""
    gate.wait(opened, "look")
    kit.choose(opened, "#data", SHOP)
    kit.choose(opened, "#data", PIRATE)
    kit.unfold(opened, "#step-plan")
    option(opened, "#rank", 16).click()
    gate.open(opened, "look")
    # the first look of this app
    kit.expect(plan(opened)).to_contain_text(re.compile("rank 16.*48 steps"), timeout=60_000)
    kit.expect(option(opened, "#rank", 16)).to_be_checked()
    is_chosen(opened, PIRATE)
    kit.open_step(opened, "plan")
    kit.unfold(opened, "#all-settings")
    kit.expect(setting(opened, "max_steps")).to_have_value("48")
    kit.expect(setting(opened, "gradient_accumulation_steps")).to_have_value("1")
    edits(opened, 1)


def test_two_choices_within_one_look_both_stand(opened: Page) -> None:
    kit.choose(opened, "#data", PIRATE)
    kit.unfold(opened, "#step-plan")
    kit.expect(plan(opened)).to_contain_text(re.compile("rank 8.*48 steps"))
    gate.close(opened, "look")
    kit.choose(opened, "#data", SHOP)
    gate.wait(opened, "look")
    option(opened, "#rank", 32).click()  # the look that waits knows nothing of it
    gate.let_one(opened, "look")
    kit.expect(plan(opened)).to_contain_text(re.compile("rank 8.*102 steps"))  # its answer is here
    gate.wait(opened, "look")
    kit.expect(option(opened, "#rank", 32)).to_be_checked()
    option(opened, "#rank", 64).click()
    gate.open(opened, "look")
    kit.expect(plan(opened)).to_contain_text(re.compile("rank 64.*102 steps"))
    kit.expect(option(opened, "#rank", 64)).to_be_checked()
    edits(opened, 1)
    with kit.accepting_dialog(opened):
        opened.locator("#reset-settings").click()
    kit.expect(option(opened, "#rank", 8)).to_be_checked()
    edits(opened, 0)


def test_what_counts_as_edited_is_what_a_person_typed_pasted_or_took_out_and_nothing_else(opened: Page) -> None:
    kit.choose(opened, "#data", SHOP)
    kit.unfold(opened, "#step-plan")
    kit.unfold(opened, "#all-settings")
    kit.expect(plan(opened)).to_contain_text("102 steps")
    a_number_that_is_being_typed_is_not_written_over(opened)
    what_is_pasted_or_taken_out_counts_as_typed(opened)
    a_field_that_is_only_passed_by_is_not_edited(opened)
    a_choice_by_keyboard_counts_as_one_by_mouse(opened)


def a_number_that_is_being_typed_is_not_written_over(opened: Page) -> None:
    """Seen: a field that was emptied had the plan's number put before what was typed then."""
    rate = setting(opened, "learning_rate")
    gate.close(opened, "look")
    kit.choose(opened, "#data", PIRATE)
    gate.wait(opened, "look")
    rate.fill("")
    gate.let_one(opened, "look")
    kit.expect(plan(opened)).to_contain_text("48 steps")  # the answer is here, and has another rate
    kit.expect(rate).to_have_value("")
    rate.press_sequentially("0.00")
    opened.evaluate("loraGarageForm.look()")  # as the clock does while somebody types
    gate.wait(opened, "look")
    gate.let_one(opened, "look")
    rate.press_sequentially("3")
    gate.open(opened, "look")
    rate.blur()
    edits(opened, 1)
    kit.expect(rate).to_have_value("0.003")
    rate.fill("")
    rate.blur()
    kit.expect(rate).to_have_value("0.0008")
    edits(opened, 0)


def what_is_pasted_or_taken_out_counts_as_typed(opened: Page) -> None:
    """Seen: a text box tells gradio of key presses alone, and the next look put back what the plan said."""
    kit.expect(setting(opened, "max_steps")).to_have_value("48")
    box = setting(opened, "eval_steps")
    box.fill("7")  # as a paste does
    box.blur()
    edits(opened, 1)
    kit.expect(box).to_have_value("7")
    box.press("End")
    box.press("Backspace")
    box.blur()
    edits(opened, 0)


def a_field_that_is_only_passed_by_is_not_edited(opened: Page) -> None:
    for name in ("optim", "lr_scheduler_type", "seed"):
        setting(opened, name).focus()
        setting(opened, name).blur()
    edits(opened, 0)
    optim = setting(opened, "optim")
    optim.select_option("adamw_8bit")
    edits(opened, 1)


def a_choice_by_keyboard_counts_as_one_by_mouse(opened: Page) -> None:
    schedule = setting(opened, "lr_scheduler_type")
    before = schedule.input_value()
    schedule.press("ArrowDown")
    edits(opened, 2)
    kit.expect(schedule).not_to_have_value(before)
    chosen = schedule.input_value()
    option(opened, "#rank", 16).click()
    kit.expect(plan(opened)).to_contain_text("rank 16")  # a look was answered
    kit.expect(schedule).to_have_value(chosen)


@held("load")
def test_a_choice_before_the_page_has_arrived_is_looked_at_once(opened: Page) -> None:
    """Seen: the same look again, once the page's own call was answered; it stood at the gate in place of the one that
    was meant."""
    kit.choose(opened, "#data", PIRATE)
    kit.expect(plan(opened)).to_contain_text("48 steps")
    gate.open(opened, "load")
    gate.answered(opened, "load")
    kit.choose(opened, "#data", SHOP)
    kit.expect(plan(opened)).to_contain_text("102 steps")
    assert opened.evaluate("gate.asked('look')") == 2


def test_the_last_of_two_data_sets_brings_its_goal(opened: Page) -> None:
    gate.close(opened, "look")
    kit.choose(opened, "#data", SHOP)
    gate.wait(opened, "look")
    kit.choose(opened, "#data", "sample:kettlewisp_facts")
    gate.open(opened, "look")
    kit.expect(kit.part(opened, "goal")).to_contain_text("Question-and-answer")
    is_chosen(opened, "sample:kettlewisp_facts")
    kit.expect(kit.part(opened, "data")).to_contain_text("Kettlewisp", ignore_case=True)


def test_the_card_that_was_pressed_stays_marked_while_an_older_look_is_answered(opened: Page) -> None:
    kit.expect(plan(opened)).to_contain_text("rank 8")
    gate.close(opened, "look")
    kit.choose(opened, "#data", SHOP)
    gate.wait(opened, "look")
    kit.choose(opened, "#data", PIRATE)
    gate.let_one(opened, "look")
    kit.expect(plan(opened)).to_contain_text("102 steps")  # its answer is here, and is of the other one
    kit.expect(opened.locator("button[data-set][aria-pressed=true]")).to_have_attribute("data-set", PIRATE)
    gate.open(opened, "look")
    kit.expect(plan(opened)).to_contain_text("48 steps")
    is_chosen(opened, PIRATE)


def test_what_was_set_after_a_recipe_was_dropped_stays_and_the_rest_is_filled(opened: Page) -> None:
    kit.choose(opened, "#data", PIRATE)
    kit.unfold(opened, "#step-plan")
    kit.unfold(opened, "#all-settings")
    kit.expect(plan(opened)).to_contain_text("48 steps")
    gate.close(opened, "recipe-file")
    drop_recipe(opened)
    gate.wait(opened, "recipe-file")
    kit.open_step(opened, "plan")
    option(opened, "#rank", 16).click()
    kit.expect(plan(opened)).to_contain_text("rank 16")
    gate.open(opened, "recipe-file")
    kit.unfold(opened, "#all-settings")
    kit.expect(setting(opened, "seed")).to_have_value("7")
    kit.expect(option(opened, "#rank", 16)).to_be_checked()
    kit.expect(kit.part(opened, "train")).to_contain_text("Mine")
    edits(opened, 2)


def test_an_answer_to_an_older_press_fills_nothing(opened: Page) -> None:
    kit.expect(plan(opened)).to_contain_text("rank 8")
    gate.close(opened, "recipe-file")
    drop_recipe(opened)
    gate.wait(opened, "recipe-file")
    opened.locator("#run-further").click()
    kit.expect(opened.locator("#further-message")).to_contain_text("the parent")
    kit.expect(plan(opened)).to_contain_text("rank 8")
    gate.close(opened, "look")
    gate.open(opened, "recipe-file")
    gate.wait(opened, "look")  # the older answer is here, and has been taken or left
    gate.open(opened, "look")
    kit.expect(opened.locator("#fill-notice")).to_contain_text("the parent")
    kit.expect(kit.part(opened, "train")).to_contain_text("the parent")
    kit.expect(opened.locator("#further-message")).to_contain_text("the parent")
    kit.expect(plan(opened)).to_contain_text("rank 8")


def test_of_several_files_that_are_read_the_newest_that_can_be_is_chosen(opened: Page) -> None:
    """By what form.js is told of their answers, in any order; one that cannot be read has none."""
    kit.expect(plan(opened)).to_contain_text("rank 8")
    chosen = opened.evaluate("""() => {
        const drop = () => loraGarageForm.drop({ explicit: {}, revision: 0 })[0].revision;
        const answered = (revision, value) => loraGarageForm.take([["data", "data"]],
            value && { revision, values: { data: value }, answers: {} }, [null])[0] ?? null;
        const [good, unreadable] = [drop(), drop()], first = [answered(unreadable, null), answered(good, "good")];
        const [slow, quick] = [drop(), drop()];
        return [...first, answered(quick, "quick"), answered(slow, "slow")];
    }""")
    assert chosen == [None, "good", "quick", None]


def test_a_dropped_recipe_of_another_tool_fills_the_form_and_says_what_became_of_each_key(
    opened: Page, tmp_path: Path
) -> None:
    kit.expect(plan(opened)).to_contain_text("rank 8")
    kit.open_step(opened, "data")
    theirs = "base_model: starter\nadapter: lora\nlora_r: 32\nlora_target_linear: true\ntf32: true\n"
    file = tmp_path / "theirs.yaml"
    file.write_text(theirs + '"<img src=x onerror=alert(1)>": 1\ndatasets: [{path: mine, type: alpaca}, b]\n', "utf-8")
    opened.locator("#file input[type=file]").set_input_files(file)
    notice = opened.locator("#file-notice")
    kit.expect(notice).to_contain_text("A recipe of axolotl: 3 keys taken as they are, 1 changed, 2 left out.")
    kit.expect(notice).to_contain_text("The dataset mine, b is known only to the other tool")
    kit.expect(notice.locator("details[open]")).to_contain_text(
        "target_linear: true → adapter.target_modules = all-linear"
    )
    kit.expect(notice.locator("details:not([open]) summary")).to_have_text(["Left out (2)", "Taken as they are (3)"])
    left = notice.locator("details").nth(1).locator("li")
    kit.expect(left).to_have_text([re.compile("tf32: true is left out. The app decides"), re.compile(r"^<img src=x")])
    kit.expect(plan(opened)).to_contain_text("rank 32")


def test_a_model_may_be_typed(opened: Page) -> None:
    kit.expect(plan(opened)).to_contain_text("rank 8")
    kit.unfold(opened, "#step-model")
    box = opened.locator("#model input")
    box.fill("../nowhere")
    box.press("Enter")
    kit.expect(opened.locator("#model-about")).to_contain_text("not a model name")
    box.fill("Qwen/Qwen3-8B")
    box.blur()
    kit.expect(kit.part(opened, "model")).to_contain_text("Qwen3-8B")


def test_a_fold_that_was_just_opened_stays_open_when_the_plan_is_drawn_anew(opened: Page) -> None:
    """Seen under load: the plan was drawn anew between the click and the browser's word that the fold is open."""
    kit.open_step(opened, "plan")
    kit.unfold(opened, "#plan-more")
    reasons = opened.locator("#plan-more .lg-plan details").nth(1)  # the first is open as it is drawn
    kit.expect(reasons).to_be_visible()
    other = opened.locator("#plan-more .lg-plan details").nth(2)
    redraw = (
        "const all = document.querySelector('#plan-more .lg-plan'); all.outerHTML = all.outerHTML.replaceAll(/ "
        "(open|data-seen)=\"\"/g, '').replaceAll(/<b>[^<]*/g, '<b>another value')"
    )
    other.locator("summary").click()
    kit.expect(other).to_have_attribute("open", "")
    opened.evaluate(f"() => {{ document.querySelectorAll('#plan-more .lg-plan summary')[1].click(); {redraw} }}")
    kit.expect(reasons).to_have_attribute("open", "")
    kit.expect(other).not_to_have_attribute("open", "")
    opened.evaluate(f"() => {{ document.querySelectorAll('#plan-more .lg-plan summary')[1].click(); {redraw} }}")
    kit.expect(reasons).not_to_have_attribute("open", "")
    reasons.locator("summary").hover()
    opened.mouse.down()
    opened.evaluate(f"() => {{ {redraw} }}")
    opened.mouse.up()
    kit.expect(reasons).to_have_attribute("open", "")


def drop_recipe(page: Page) -> None:
    """Drop a recipe of a rank and a seed."""
    recipe = (
        b"name: Mine\ngoal: writing\nmodel: {id: starter}\ndata: {source: 'sample:pirate_answers'}\nadapter: {r: 32}\n"
    )
    kit.open_step(page, "goal")
    kit.unfold(page, "#start-from")
    page.locator("#recipe-file input").set_input_files(
        {"name": "mine.yaml", "mimeType": "text/yaml", "buffer": recipe + b"adapter: {r: 32}\ntrain: {seed: 7}\n"}
    )


def test_an_answer_between_a_click_and_what_is_told_of_it_leaves_the_choice(opened: Page) -> None:
    """A button of choice is pressed in the page a moment before gradio tells of it; the look that arrives in between
    asked before."""
    kit.unfold(opened, "#step-plan")
    kit.choose(opened, "#method", "lora")
    filled = opened.evaluate(
        """() => {
            const form = window.loraGarageForm, { revision } = form.sent({ explicit: {}, revision: 0 })[0];
            document.querySelector("#method input[value=qlora]").click();
            const answer = { is_look: true, revision, answers: {}, values: { method: "lora", rank: 7 } };
            return form.take([["method", "method"], ["rank", "rank"]], answer, ["qlora", 8])
                .map((value) => value ?? "left");
        }"""
    )
    assert filled == ["left", 7]
    kit.expect(opened.locator("#method input[value=qlora]")).to_be_checked()
