"""What will be learned, as HTML: nothing of a data file becomes markup, and every number is said in words."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import pytest

from core.data.formats import ChatMessage, Example
from core.data.preview import Counts, Preview
from core.data.sets.row_view import RowView, Span
from core.messages import msg
from webui.form import learned_view
from webui.form.data import DataStep
from webui.kit.format import NARROW
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording

EN, ZH = Wording("en"), Wording("zh")
COUNTS = Counts(
    max_length=64, long_examples="cut", rows=1200, counted=1200, tokens=40_000, learned=10_000, pieces=1198,
    rows_cut=30,
    tokens_cut=900, rows_split=0, rows_dropped=2, rows_refused=0, first_dropped=(17, 1041), longest=700, p99=300,
    median=50, exact=True,
)  # fmt: skip
VIEW = RowView(
    index=3, total=68, row_number=5, length=60, learned=9, cut=20, parts=1, dropped=False, special=("<|im_end|>",),
    pieces=(Span("Hi\n", "given"), Span("ok<|im_end|>", "learned"), Span("later", "cut_given"), Span("gone",
        "cut_learned")),
)  # fmt: skip


def plain(html: str) -> str:
    """What a person reads: the text without its tags, and where it breaks."""
    return unescape(re.sub(r"<[^>]+>", " ", html)).replace(NARROW, " ")


def preview(lengths: list[int]) -> Preview:
    """Estimated: a row has a quarter of its characters as tokens and 12 for each of its two turns."""
    return Preview.measure([(i, Example(messages=(ChatMessage("user", ""), ChatMessage("assistant",
        "x" * 4 * (n - 24)))))
                            for i, n in enumerate(lengths, 1)], None)  # fmt: skip


@pytest.mark.parametrize("wording", [EN, ZH], ids=["en", "zh"])
def test_counters_say_what_is_learned_cut_and_left_out(wording: Wording) -> None:
    text = plain(learned_view.counters(COUNTS, wording))
    assert f"25.0{NARROW}%" in learned_view.counters(COUNTS, wording), "a tile broke between the number and its sign"
    for number in ("25.0 %", "10,000", "40,000", "30", "900", "1,200", "64", "17, 1,041"):
        assert number in text
    assert "about" not in text and "约" not in text and "{" not in text
    row = learned_view.row(replace(VIEW, examples=2), wording)
    assert "。 " not in learned_view.counters(COUNTS, wording) + row, "Chinese has no space between sentences"


@pytest.mark.parametrize(
    ("wording", "about", "estimated"), [(EN, "about 25.0 %", "Estimated"), (ZH, "约 25.0 %", "估计")]
)
def test_what_was_not_counted_exactly_is_said_to_be_estimated(wording: Wording, about: str, estimated: str) -> None:
    for counts in (replace(COUNTS, exact=False), replace(COUNTS, counted=1000)):
        text = plain(learned_view.counters(counts, wording))
        assert about in text and estimated in text
    assert estimated not in plain(learned_view.counters(COUNTS, wording))


@pytest.mark.parametrize(("wording", "sentence"), [(EN, "1 of 2 rows is skipped"), (ZH, "2 行中有 1 行已跳过")])
def test_rows_that_the_template_refuses_are_told_of_beside_what_is_learned(wording: Wording, sentence: str) -> None:
    step, counted = DataStep(None, wording), preview([40, 60])
    assert sentence not in plain(step.counters_of(counted, 64, "cut"))
    counted.refused.add(2, msg("template.no_tools"))
    assert sentence in plain(step.counters_of(counted, 64, "cut")) and wording.t("template.no_tools") in plain(
        step.counters_of(counted, 64, "cut")
    )


def test_counters_of_a_set_that_fits_warn_of_nothing() -> None:
    fits = replace(COUNTS, rows_cut=0, tokens_cut=0, rows_dropped=0, first_dropped=())
    assert "lg-counter-warn" in learned_view.counters(COUNTS, EN)
    assert "lg-counter-warn" not in learned_view.counters(fits, EN)


@pytest.mark.parametrize("wording", [EN, ZH], ids=["en", "zh"])
def test_split_and_left_out_rows_are_said_as_such(wording: Wording) -> None:
    split = plain(
        learned_view.counters(replace(COUNTS, long_examples="split", rows_cut=0, rows_split=30, pieces=1277), wording)
    )
    assert "1,277" in split and wording.t("learned_view.split_short") in split and "900" not in split
    dropped = plain(
        learned_view.counters(replace(COUNTS, long_examples="drop", rows_cut=0, tokens_cut=0, rows_dropped=32), wording)
    )
    assert "32" in dropped and wording.t("learned_view.cut_none") in dropped
    row = plain(learned_view.row(replace(VIEW, cut=0, parts=7), wording))
    assert " 7 " in row


def test_the_histogram_is_well_formed_and_told_to_screen_readers() -> None:
    drawn = ElementTree.fromstring(learned_view.histogram(preview([30, 40, 40, 100]), 64, EN))
    svg = drawn.find("svg")
    assert svg.get("role") == "img" and svg.get("aria-label").startswith("Estimated")
    for number in ("40", "100", "64"):  # median, longest and 99 %, max_length
        assert number in svg.get("aria-label")


def test_bars_and_line_lie_where_the_lengths_are() -> None:
    """Lengths 30, 40, 40, 100: bins of 5 tokens from 30 to 100, so bars begin at 30, 40 and 95; the line is at 64."""
    svg = ElementTree.fromstring(learned_view.histogram(preview([30, 40, 40, 100]), 64, EN)).find("svg")
    scale = (learned_view.WIDTH - learned_view.LEFT - learned_view.RIGHT) / 70  # of a token, between 30 and 100
    rects = {rect.get("class"): [] for rect in svg.iter("rect")}
    for rect in svg.iter("rect"):
        rects[rect.get("class")].append((float(rect.get("x")) - learned_view.LEFT, float(rect.get("height"))))
    (first, low), (second, high) = rects["lg-bar-kept"]
    assert first == pytest.approx(0, abs=2) and second == pytest.approx((40 - 30) * scale, abs=2)
    assert high == pytest.approx(2 * low, abs=0.2)
    ((cut, _),) = rects["lg-bar-cut"]
    assert cut == pytest.approx((95 - 30) * scale, abs=2)
    line = next(line for line in svg.iter("line") if line.get("class") == "lg-limit")
    assert float(line.get("x1")) - learned_view.LEFT == pytest.approx((64 - 30) * scale, abs=0.5)


def test_a_max_length_beyond_all_rows_is_shown_at_the_edge_with_an_arrow() -> None:
    html = learned_view.histogram(preview([30, 40]), 4096, ZH)
    assert "最大长度 4,096 →" in html and "lg-bar-cut" not in html


def test_rows_of_one_length_and_one_row_alone_can_be_drawn() -> None:
    for lengths in ([24], [50, 50, 50], [40]):
        assert learned_view.histogram(preview(lengths), 50, EN).count("<rect") == 1


def test_a_max_length_below_all_rows_is_shown_at_the_left_edge() -> None:
    html = learned_view.histogram(preview([300, 400]), 50, EN)
    assert f'<line x1="{learned_view.LEFT:.1f}"' in html and "lg-bar-kept" not in html


def test_a_row_marks_what_is_learned_and_what_is_cut() -> None:
    html = learned_view.row(VIEW, EN)
    assert "<span>Hi\n</span>" in html
    assert '<mark class="lg-learned">ok<span class="lg-special">&lt;|im_end|&gt;</span></mark>' in html
    assert '<s class="lg-cut">later</s><s class="lg-cut lg-cut-learned">gone</s>' in html
    assert "Row 5 of the file (4 of 68)" in html and "the last 20 truncated" in html
    assert learned_view.legend(EN) in html and "skipped" not in html


def test_a_row_that_is_left_out_says_so() -> None:
    assert "skipped" in learned_view.row(replace(VIEW, dropped=True), EN)


def test_nothing_of_a_data_file_becomes_markup() -> None:
    evil = "<img src=x onerror=alert(1)>\"'&<|im_end|></mark><script>"
    for kind in ("given", "learned", "cut_given", "cut_learned"):
        html = learned_view.row(replace(VIEW, pieces=(Span(evil, kind),), special=("<|im_end|>", "<script>")), EN)
        assert "<img" not in html and "<script>" not in html and plain(html).count("onerror=alert(1)") == 1


def test_the_characters_that_are_not_shown_are_counted() -> None:
    assert "12,345" in plain(learned_view.row(replace(VIEW, pieces=(Span("12345", "more"),)), ZH))


def test_without_the_model_a_row_says_why_it_is_not_shown() -> None:
    assert "once the model is on this PC" in learned_view.row(None, EN)


def test_every_class_of_the_view_has_its_look() -> None:
    css = "".join((ASSETS / name).read_text("utf-8") for name in ("learned.css", "page.css"))
    html = (
        learned_view.counters(replace(COUNTS, exact=False), EN)
        + learned_view.histogram(preview([30, 40, 100]), 64, EN)
        + learned_view.row(replace(VIEW, pieces=(*VIEW.pieces, Span("9", "more")), dropped=True), EN)
    )
    used = {name for classes in re.findall(r'class="([^"]+)"', html) for name in classes.split()}
    unstyled = {"lg-tick", "lg-counter-plain"}
    assert {name for name in used - unstyled if f".{name}" not in css} == set()


@pytest.mark.parametrize("wording", [EN, ZH], ids=["en", "zh"])
def test_thinking_and_tool_calls_have_marks_of_their_own_and_are_never_markup(wording: Wording) -> None:
    pieces = (Span("1", "example"), Span("Hi", "given"), Span("I <b>think</b>", "learned", "thinking"), Span("ok",
        "learned"),
              Span("2", "example"), Span('<tool_call>{"a": 1}', "learned", "call"))  # fmt: skip
    drawn = learned_view.row(replace(VIEW, pieces=pieces, examples=2), wording)
    marks = {
        mark.get("class"): "".join(mark.itertext()) for mark in ElementTree.fromstring(drawn).find("div").iter("mark")
    }
    assert marks == {
        "lg-learned": "ok",
        "lg-learned lg-thinking": "I <b>think</b>",
        "lg-learned lg-call": '<tool_call>{"a": 1}',
    }
    text = plain(drawn)
    for key in ("legend_thinking", "legend_call"):
        assert wording.t(f"learned_view.{key}") in text and wording.t(f"learned_view.{key}") not in plain(
            learned_view.row(VIEW, wording)
        )
    assert wording.t("learned_view.example", number="2") in text
