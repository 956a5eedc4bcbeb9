"""The text of a message that its app keeps as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_BLOCKS = {"p", "div", "br", "ul", "ol", "tr", "pre", "h1", "h2", "h3", "h4", "h5", "h6"}
_QUOTED = {"quote", "blockquote"}  # what the message answers
_MEDIA = {"img", "attachment", "video", "audio"}


class _Text(HTMLParser):
    """Collects the text of a message outside of quotations, and whether it has media."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.has_media = False
        self._quotes = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a new line for a block and "- " for a list item, keep the alternative text of a picture such as an
        emoji, and note media and the beginning of a quotation."""
        self._quotes += tag in _QUOTED
        self.has_media |= tag in _MEDIA
        # The picture of an emoji has the character itself as its `alt`.
        self.handle_data("\n- " if tag == "li" else "\n" if tag in _BLOCKS else dict(attrs).get("alt") or "")

    def handle_endtag(self, tag: str) -> None:
        """Begin a new line after a block, and note the end of a quotation."""
        self._quotes = max(0, self._quotes - (tag in _QUOTED))
        self.handle_data("\n" if tag in _BLOCKS else "")

    def handle_data(self, data: str) -> None:
        """Keep a piece of text for the message, unless it stands inside a quotation."""
        if not self._quotes:
            self.parts.append(data)


def text_of_html(html: str) -> tuple[str, bool]:
    """Return the text of HTML without the message that it quotes, a line for each paragraph and list item and at most
    one empty line between, and whether a picture or a file is beside it."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    lines = "".join(parser.parts).replace("\xa0", " ").split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.strip() for line in lines)).strip(), parser.has_media
