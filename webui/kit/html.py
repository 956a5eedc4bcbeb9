"""HTML that is safe by construction: everything that is not Html already is escaped, text and attributes alike.

gr.HTML shows its value as raw HTML, and run names, file names and error messages come from people and files.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import count

_EMPTY = frozenset({"br", "hr", "img", "input", "meta"})
_NUMBERS = count()


class Html(str):
    """Markup that was built here; plain str is text."""

    __slots__ = ()


def tag(name: str, *children: str | None, **attributes: str | int | float | bool | None) -> Html:
    """Return an element as HTML, as in `tag("p", "text", class_="note", aria_label="x")`; text and attributes are
    escaped. None children and None or False attributes are left out."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        parts.append(f" {label}" if value is True else f' {label}="{escape(str(value), quote=True)}"')
    parts.append(">")
    if name in _EMPTY:
        return Html("".join(parts))
    return Html("".join(parts) + join(children) + f"</{name}>")


def join(children: Iterable[str | None]) -> Html:
    """Return texts as one piece of HTML: Html as it is, any other text escaped, None left out."""
    return Html(
        "".join(child if isinstance(child, Html) else escape(str(child)) for child in children if child is not None)
    )


def muted(sentence: str) -> Html:
    return tag("p", sentence, class_="lg-quiet")


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Return a two-column list of names and values."""
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in pairs), class_="lg-facts")


def placeholder(sentence: str, title: str | None = None) -> Html:
    """Return a box that stands in the place of something that does not exist yet."""
    return tag("div", tag("p", tag("strong", title)) if title else None, tag("p", sentence), class_="lg-empty")


def notice(sentence: str, tone: str = "bad") -> Html:
    """Return a sentence as a notice, which screen readers read out when it appears; empty for "". tone: bad, warn, ok
    or plain."""
    if not sentence:
        return Html("")
    return tag("p", sentence, class_=f"lg-notice lg-{tone}", role="alert" if tone == "bad" else "status")


def success(sentence: str) -> Html:
    """Return the notice that a press had its effect, which goes at the next press (assets/focus.js); empty for "". Its
    number makes the page draw the same sentence again."""
    if not sentence:
        return Html("")
    return tag("p", sentence, class_="lg-notice lg-ok lg-passing", role="status", data_number=next(_NUMBERS))


def bar(label: str, percent: int | None) -> Html:
    """Return a progress bar. percent None: the progress is unknown."""
    unknown = " lg-bar-unknown" if percent is None else ""
    fill = tag("div", class_=f"lg-bar-fill{unknown}", style=f"width:{percent or 0}%")
    values = {"aria_valuemin": 0, "aria_valuemax": 100, "aria_valuenow": percent}
    return tag("div", fill, class_="lg-bar", role="progressbar", aria_label=label, **values)


def share_bar(share: float, interval: tuple[float, float] | None = None) -> Html:
    """Return a share as a bar with its confidence interval, all from 0 to 1. Screen readers skip it: words beside it
    say the same."""
    low, high = (round(100 * end) for end in interval or (0, 0))
    span = tag("b", style=f"left:{low}%;width:{high - low}%") if interval else None
    return tag("span", tag("i", style=f"width:{round(100 * share)}%"), span, class_="lg-win-bar", aria_hidden="true")
