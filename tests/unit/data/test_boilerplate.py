"""What stands around a text is no part of it: licences, front matter, navigation. It is left out, and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.reading.choices import Choices
from core.data.sets import working
from core.data.sets.inspection import DataReport, inspect_file
from core.data.store import DatasetStore
from core.presets import PRESETS
from core.recipe import Data
from tests.kit.read_examples import examples_of

STORY = [f"On day {n} the ferryman crossed the river and came back alone." for n in range(5)]
HEADER = [
    "The Project Gutenberg eBook of The Ferryman, by A. Nobody",
    "This eBook is for the use of anyone anywhere at no cost.",
    "Title: The Ferryman",
    "*** START OF THE PROJECT GUTENBERG EBOOK THE FERRYMAN ***",
    "Produced by some volunteers",
]
FOOTER = [
    "*** END OF THE PROJECT GUTENBERG EBOOK THE FERRYMAN ***",
    "Updated editions will replace the previous one.",
    "START: FULL LICENSE",
]


def read(tmp_path: Path, paragraphs: list[str], name: str = "book.txt") -> tuple[DataReport, list[str]]:
    file = tmp_path / name
    file.write_text("\n\n".join(paragraphs) + "\n", "utf-8")
    return inspect_file(file), [example.text or "" for _, example in examples_of(file)]


def left_out(report: DataReport) -> dict[str, int]:
    return {left.what.key: left.count for left in report.left_out}


def test_the_licence_at_both_ends_of_a_book_is_left_out_and_counted(tmp_path: Path) -> None:
    report, texts = read(tmp_path, HEADER + STORY + FOOTER)
    assert texts == STORY and left_out(report) == {"left_out.around_licence": 8}
    assert report.rows == report.good_rows == 5


@pytest.mark.parametrize(
    ("header", "footer"),
    [
        (["*** START OF THIS PROJECT GUTENBERG EBOOK DIE FÄHRE ***"], []),
        ([], ["End of Project Gutenberg's The Ferryman, by A. Nobody", "The licence"]),
        (["*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*"], ["End of the Project Gutenberg EBook"]),
    ],
)
def test_banners_of_other_years_and_at_one_end(header: list[str], footer: list[str], tmp_path: Path) -> None:
    report, texts = read(tmp_path, header + STORY + footer)
    assert texts == STORY and left_out(report)["left_out.around_licence"] == len(header + footer)


def test_the_last_words_before_the_licence_stay(tmp_path: Path) -> None:
    _, texts = read(tmp_path, [*HEADER, *STORY, "The end.\n" + FOOTER[0], *FOOTER[1:]])
    assert texts == [*STORY, "The end."]


def test_a_text_about_project_gutenberg_is_read_completely(tmp_path: Path) -> None:
    about = ["Project Gutenberg was started in 1971.", "The end of Project Gutenberg is not near.", *STORY]
    report, texts = read(tmp_path, about)
    assert texts == about and not report.left_out


@pytest.mark.parametrize(
    "matter",
    [
        "---\ntitle: The ferry\ndate: 2025-03-03\n---",
        "+++\ntitle = 'The ferry'\n+++",
        "---\ntitle: a\n\ntags: [b]\n---",
    ],
)
def test_front_matter_of_markdown_is_left_out(matter: str, tmp_path: Path) -> None:
    report, texts = read(tmp_path, [f"{matter}\n# The ferry\nIt is late.", *STORY], "page.md")
    assert texts == ["# The ferry\nIt is late.", *STORY] and left_out(report) == {"left_out.around_front": 1}
    assert read(tmp_path, [matter, *STORY], "page.md")[1] == STORY
    assert read(tmp_path, [matter, *STORY], "page.txt")[1][0] == matter.partition("\n\n")[0], "not Markdown"


@pytest.mark.parametrize("rule", ["---", "---\n\n# A heading", "---\nnot: closed"])
def test_a_ruler_is_no_front_matter(rule: str, tmp_path: Path) -> None:
    report, texts = read(tmp_path, [rule, *STORY], "page.md")
    assert "\n\n".join(texts) == "\n\n".join([rule, *STORY]) and not report.left_out


def page(body: str) -> str:
    return f"<!doctype html><html><head><title>t</title></head><body>{body}</body></html>"


@pytest.mark.parametrize(
    "body",
    [
        "<div class='site-nav'><a>Home</a></div><main>{text}</main><footer>Imprint</footer>",
        "<div id='cookie-consent'><p>We use cookies.</p></div>{text}<div class='footer'><p>© 2025</p></div>",
        "<div role='dialog'><p>Wir verwenden Cookies.</p></div><article>{text}</article><aside>Read on</aside>",
        "<ul class='breadcrumb'><li>Start</li></ul>{text}<div aria-hidden='true'><p>Sign up now</p></div>",
    ],
)
def test_navigation_and_cookie_notices_of_a_web_page_are_left_out(body: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(body.replace("{text}", "".join(f"<p>{line}</p>" for line in STORY))), "utf-8")
    report = inspect_file(file)
    assert [example.text for _, example in examples_of(file)] == STORY
    assert report.left_out[0].what.key == "left_out.around_page" and report.left_out[0].count >= 1


def test_a_page_whose_parts_are_marked_otherwise_is_read_completely(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        page("<div class='menu'>" + "".join(f"<p>{line}</p>" for line in STORY) + "</div><p>x</p>"), "utf-8"
    )
    assert [example.text for _, example in examples_of(file)] == [*STORY, "x"]


def test_raw_text_says_once_that_it_teaches_style(tmp_path: Path) -> None:
    report, _ = read(tmp_path, STORY)
    assert [note.key for note in report.notes].count("data.note_style") == 1
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "What is it?", "answer": "A ferry."}\n', "utf-8")
    assert "data.note_style" not in [note.key for note in inspect_file(file).notes]


def test_an_older_run_and_older_edits_keep_the_rows_that_they_had(tmp_path: Path) -> None:
    store, file = DatasetStore(tmp_path / "datasets", PRESETS), tmp_path / "book.txt"
    file.write_text("\n\n".join(HEADER + STORY + FOOTER), "utf-8")
    id = store.import_file(file).id
    older = Choices(join_paragraphs=False)
    assert len(store.rows(id)) == 5 and len(store.rows(id, choices=older)) == 13
    assert store.pinned(Data(source=id)).join_paragraphs is True
    working.edit_rows(store, id, remove=[1])
    log = next(store.path(id).parent.glob("edits-*.jsonl"))
    log.rename(log.with_name(f"{log.name}.aside"))
    before = store._reading(store.path(id), None, older)  # noqa: SLF001 - the name that its edits had before
    from core.data.sets.edits import files_of

    log.with_name(f"{log.name}.aside").rename(files_of(log.parent, before)[0])
    assert len(store.rows(id)) == 12, "as before, without its first row"


def test_every_usual_ending_of_markdown_is_read_alike(tmp_path) -> None:
    for ending in ("md", "markdown", "mkd"):
        (tmp_path / f"a.{ending}").write_text("---\ntitle: Bees\n---\n# Bees\n\nThey hum in the garden.\n", "utf-8")
    kinds = {inspect_file(path).good_rows for path in tmp_path.iterdir()}
    assert len(kinds) == 1 and "title" not in str([*examples_of(tmp_path / "a.markdown")])
