"""The table of judges in the data step."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from core.judges import weighted
from webui.form.judges_view import drawn
from webui.kit.wording import Wording

ANSWERS = ["payment", "delivery", "defect", "praise"] * 5
LABELS = {"kind": "label", "labels": ["payment", "delivery", "defect", "praise"]}
W = Wording("en")


def shown(*judges: dict[str, Any], **rewards: Any) -> str:
    return drawn({"judges": list(judges)} | rewards, {"judges": [LABELS]}, ANSWERS, W)


def test_content_and_form_are_told_apart_with_weights_and_the_own_answers() -> None:
    page = shown(LABELS, {"kind": "regex", "pattern": "<b>$", "weight": 0.5}, beta=0.2)
    assert page.count("<tr data-judge") == 2 and page.count("looks at form alone</span>") == 1
    assert "<td>100 %</td>" in page and "<td>0 %</td>" in page, "own answers by each judge"
    assert 'value="0.5"' in page and 'value="&lt;b&gt;$"' in page and "<b>" not in page
    assert 'name="beta" value="0.2"' in page and "All judges look at form" not in page
    offered = [json.loads(text.replace("&quot;", '"')) for text in re.findall(r'<option value="({.*?})"', page)]
    assert [one["kind"] for one in offered] == ["exact", "contains", "similarity", "length", "regex", "language"]
    assert weighted.read(offered) and offered[3]["most"] == 2, "twice the longest; number and JSON judge no label"


def test_form_alone_proposes_a_beta_and_one_judge_stays() -> None:
    page = shown({"kind": "length", "most": 8})
    assert "So beta is 0.1" in page and 'placeholder="0.1"' in page and "disabled" in page
    assert 'name="most" value="8"' in page
    assert "So beta" not in shown({"kind": "length", "most": 8}, LABELS)


@pytest.mark.parametrize(
    "junk",
    [None, 7, [], {}, {"judges": 3}, {"judges": [3]}, {"judges": []}, {"judges": [{"kind": "odd", "weight": "x"}]},
     {"judges": [{"kind": ["a"]}]}, {"judges": [{"kind": "regex", "pattern": ""}], "beta": "much"},
     {"judges": [{"kind": "regex", "pattern": "("}]}, {"judges": [{"kind": "person"}], "num_generations": [2]}],
)  # fmt: skip
def test_any_json_of_a_browser_is_drawn_or_left_out(junk: Any) -> None:
    page = drawn(junk, None, ANSWERS, W)
    assert "None" not in page and drawn(junk, None, [], W) is not None
