"""Help: the guide's chapters (docs/guide), in the page's language where there is a translation."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr

from core.presets import PROJECT
from webui.kit.live import AT_ONCE
from webui.kit.panel import Panel
from webui.pages.page_around import PageAround

GUIDE = PROJECT / "docs" / "guide"
# In the order of the guide's list.
CHAPTERS = tuple(re.findall(r"^\| \[[^\]]+\]\(([\w-]+)\.md\)", (GUIDE / "README.md").read_text("utf-8"), re.MULTILINE))
# Lines with only a picture or a link to the translation.
LEFT_OUT = re.compile(r"^!?\[[^\]]*\]\([^)]*\)\s*$", re.MULTILINE)
# The end of a line inside a sentence of Chinese, which Markdown would show as a space.
WRAPPED = re.compile(r"(?<=[“”\u3001-\u9fff\uff01-\uff5e])\n(?=[“”\u3001-\u9fff\uff01-\uff5e])")
LINK_TO_FILE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://)[^)]*\)")


def draw(around: PageAround, tab: gr.Tab) -> None:
    """Build the Help page into its tab and connect it."""
    page = HelpPage(around.services, around.w)
    page.build()
    page.wire()


class HelpPage(Panel):
    def build(self) -> None:
        """Build the list of chapters and the text of the first."""
        titles = [(title_of(chapter, self.w.language), chapter) for chapter in CHAPTERS]
        with gr.Row(equal_height=False, elem_id="help-columns"):
            with gr.Column(scale=3, min_width=220):
                self.chapter = gr.Radio(titles, value=CHAPTERS[0], **self.w.named("help_page.chapter", "help-chapter"))
            with gr.Column(scale=8, min_width=320, elem_classes="lg-card"):
                self.text = gr.Markdown(text_of(CHAPTERS[0], self.w.language), elem_id="help-text")

    def wire(self) -> None:
        self.chapter.change(self.read, [self.chapter], [self.text], **AT_ONCE)

    def read(self, chapter: str) -> str:
        """Return the text of a chapter; of the first for an unknown one."""
        return text_of(chapter if chapter in CHAPTERS else CHAPTERS[0], self.w.language)


def text_of(chapter: str, language: str) -> str:
    """Return the chapter without its pictures; links to other files become plain text, as the page does not serve
    them."""
    text = LEFT_OUT.sub("", _file(chapter, language).read_text("utf-8"))
    return WRAPPED.sub("", LINK_TO_FILE.sub(r"\1", text))


def title_of(chapter: str, language: str) -> str:
    """Return a chapter's heading, the first line of its file."""
    first = _file(chapter, language).read_text("utf-8").partition("\n")[0]
    return first.lstrip("# ").strip()


def _file(chapter: str, language: str) -> Path:
    """Return the chapter's file in a language, else the English one."""
    translated = GUIDE / f"{chapter}.{language}.md"
    return translated if translated.exists() else GUIDE / f"{chapter}.md"
