"""The shelf as rows: all words there are, what a person chooses by in each row, and nothing of a name is markup."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from core.advice import shelf
from core.advice.wish import Wish
from core.memory import budget
from core.memory.budget import Budget
from core.models import starter
from core.models.known import known_models
from core.workspace.folder import Workspace
from webui.form import model as step
from webui.form.planner import HERE, FormResult, Planner
from webui.kit.wording import Wording
from webui.shelf import rows
from webui.shelf.rows import Marks
from webui.shelf.shelf import ModelShelf
from webui.state.services import Services

EIGHT = budget.planned(8, "Linux")
NOTHING = Marks(None, ())
EN = Wording("en")


def drawn(
    words: str, there: Budget = EIGHT, wish: Wish | None = None, marks: Marks = NOTHING, language: str = "en"
) -> str:
    wish = wish or Wish()
    return rows.shelf(shelf.find(words, there, wish), wish, marks, Wording(language))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("there", [EIGHT, Budget(kind="cpu", free_gib=10.0), Budget(kind="card")])
def test_every_model_has_its_words(language: str, there: Budget) -> None:
    markup = drawn("", there, language=language)
    assert markup.count("<li") == len(known_models())
    assert "{" not in markup and "None" not in markup and "shelf_view." not in markup


def test_a_row_says_what_people_choose_by() -> None:
    result = shelf.find("gemma 3 4b", EIGHT)
    model = next(row for row in result.rows if row.model.id == "gemma-3-4b-it")
    markup = rows.row(model, "ja", NOTHING, EN)
    assert f'data-model="{model.model.hub}"' in markup
    assert "fits with QLoRA" in markup and re.search(r"LoRA \d+\.\d GiB, QLoRA \d\.\d GiB", markup)
    assert "limited commercial use" in markup and "37 languages with Japanese" in markup
    assert re.search(r'<a href="https://\S+/google/gemma-3-4b-it"[^>]*rel="noopener noreferrer"', markup)
    assert model.model.note["en"] in markup


def test_a_row_tells_minutes_where_they_can_be_computed_and_none_elsewhere() -> None:
    words = "qwen3 8b"
    assert "min" not in drawn(words) and "256" not in drawn(words)
    planned = budget.planned(24, "Linux")
    markup = drawn(words, planned, marks=Marks(None, (), planned))
    assert re.search(r"about \d+ min", markup) and "1,000 examples of 256 tokens" in markup
    assert re.search(r"约 \d+ 分钟", drawn(words, planned, marks=Marks(None, (), planned), language="zh"))
    small = budget.planned(6, "Linux")
    assert not re.search(r"about \d+ min", drawn(words, small, marks=Marks(None, (), small))), "does not fit"


def test_a_model_is_described_in_german_on_the_german_page() -> None:
    """Seen: English sentences about every model."""
    markup = drawn("qwen3 8b", language="de")
    assert "Fine-Tuning-Vergleich" in markup and "twelve small models" not in markup


def test_a_model_that_was_never_timed_tells_what_its_size_tells() -> None:
    processor = Budget(kind="cpu", free_gib=64.0)
    assert re.search(r"about \d+ (min|h|days)", drawn("qwen3 14b", processor, marks=Marks(None, (), budget=processor)))


def test_what_was_understood_is_said_and_what_a_control_asks_for_is_not_said_again() -> None:
    markup = drawn("small japanese for 6 GB", wish=Wish(fits=True))
    status = re.search(r'role="status">(.*?)</div>', markup)
    assert status and "speaks Japanese" in status[1] and "6 GB" in status[1]
    assert "个模型（不超过 4.7B · " in drawn("small japanese", language="zh"), (
        "in Chinese brackets, as the sentence has them"
    )
    assert "fits" not in (re.search(r'role="status">(.*?)</div>', drawn("", wish=Wish(fits=True))) or [""])[0]


def test_words_that_mean_nothing_bring_a_sentence_and_no_rows() -> None:
    markup = drawn("xyzzyq <b>")
    assert "<li" not in markup and "xyzzyq" in markup and "<b>" not in markup


def test_the_chosen_row_and_those_on_this_pc_are_marked() -> None:
    markup = drawn("qwen3 4b", marks=Marks("Qwen/Qwen3-4B", {"Qwen/Qwen3-4B"}))
    assert markup.count('aria-pressed="true"') == 1 and markup.count("on this PC") == 1
    assert re.search(r'data-model="Qwen/Qwen3-4B" aria-pressed="true"', markup)


def test_what_a_row_says_is_text() -> None:
    row = shelf.find("", EIGHT).rows[0]
    hostile = replace(
        row, model=row.model.model_copy(update={"title": "<i>x</i>", "note": {"en": "<script>", "zh": "<script>"}})
    )
    markup = rows.row(hostile, None, NOTHING, EN)
    assert "<i>" not in markup and "<script>" not in markup


@pytest.mark.parametrize("junk", [None, 7, [], {}, "x" * 5000])
def test_any_json_draws_the_shelf(junk: object, tmp_path: Path) -> None:
    services = Services.open(Workspace.open(tmp_path / "workspace"))
    part = ModelShelf(services, Planner(services).budget_or_here, EN)
    assert "role" in part.draw(junk, junk, junk, junk, junk, junk)
    assert "<li" in part.draw(HERE, "", False, False, "", "starter")


def test_the_starter_is_said_to_be_on_this_pc_only_once_it_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, its row said "on this PC" while the text below it spoke of 269 MB to download; what is fetched are 93
    MB."""
    services = Services.open(Workspace.open(tmp_path / "workspace"))
    part = ModelShelf(services, Planner(services).budget_or_here, EN)
    result = FormResult(shape=services.models.shape("starter"))

    def row_and_below() -> tuple[str, str]:
        return part.draw(HERE, "smollm2 135m", False, False, "", "starter"), step.about("starter", result, services, EN)

    row, below = row_and_below()
    assert "on this PC" not in row and "about 93 MB to download" in below
    monkeypatch.setattr(starter, "is_ready", lambda models: True)
    row, below = row_and_below()
    assert row.count("on this PC") == 1 and "Already on this PC" in below and "download" not in below


def test_one_event_draws_the_shelf_and_what_the_hub_found_is_cleared_before(tmp_path: Path) -> None:
    """Two events answer in any order, and the list of what was typed first stayed; what hangs on one event runs in
    turn, and what the hub answered while the list was drawn went with it (both seen)."""
    made = ModelShelf(Services.open(Workspace.open(tmp_path)), lambda *_: EIGHT, EN)
    with gr.Blocks(analytics_enabled=False) as page:
        memory, model = gr.Dropdown(elem_id="memory"), gr.Dropdown(elem_id="model")
        made.build()
        made.wire(page, memory, gr.CheckboxGroup(elem_id="cards"), model)
    calls = page.get_config_file()["dependencies"]
    assert len([call for call in calls if call["outputs"] == [made.shown._id]]) == 1
    typed = [call for call in calls if (made.words._id, "change") in map(tuple, call["targets"])]
    assert [call["backend_fn"] for call in typed] == [False, True]
