"""What the film on the page is drawn from."""

from __future__ import annotations

import json
from pathlib import Path

from core.runs import sample_answers
from core.runs.folder import RunFolder
from core.runs.sample_answers import Frame
from core.workspace.folder import Workspace
from tests.kit.film import LOSSES, film_of
from webui.kit.wording import Wording
from webui.run.film import film_strip, reel
from webui.state.services import Services


def test_a_film_is_sent_with_its_words_and_the_meter_of_each_frame(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert reel(run, Wording("en")) == {"run": run.id, "scenes": [], "frames": []}
    film_of(run, *LOSSES)
    sample_answers.append(run, Frame(step=90, answers=()))  # of other scenes: of no use
    sent = reel(run, Wording("en"))
    assert [each["source"] for each in sent["scenes"]] == ["from your data, validation"] * 2 + ["your own", "general"]
    assert [each["step"] for each in sent["frames"]] == list(LOSSES)
    assert sent["frames"][0]["answers"][3] == ["", "none"], (
        "what was cut by time, as versions before wrote it, is not shown"
    )
    assert sent["frames"][2]["meter"] == "General text: loss 3.21 → 3.35, 4 % worse: a little forgotten."
    assert [each["tone"] for each in sent["frames"]] == ["plain", "plain", "plain", "warn", "bad"]
    assert "3.21 → 3.35" in reel(run, Wording("zh"))["frames"][2]["meter"]


def test_the_film_in_the_page_is_plain_data_that_gradio_can_copy(tmp_path: Path) -> None:
    """gr.HTML (6.31) takes a quoted word of its script for an event: "every" was one of its own settings, so that each
    opening of the page copied the component with all services behind it, for seconds."""
    strip = film_strip(Services.open(Workspace.open(tmp_path)), Wording("en"), None, "film")
    assert "all_questions" in json.dumps(strip.get_config())
