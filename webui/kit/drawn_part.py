"""A part of a page that the server draws as HTML, in which all text is escaped, with its buttons and fields; the page
polls it, and receives it if it has changed (assets/drawn_part.js)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import gradio as gr

from core.errors import GarageError
from core.files import JsonObject
from core.hub.downloads import ACTIVE
from webui.kit.html import Html, notice, tag
from webui.kit.theme import ASSETS
from webui.kit.visitor import IS_LOCAL, is_local
from webui.kit.wording import Wording
from webui.state.services import Services

POLL_MS, IDLE_POLL_MS = 1000, 4000
TEMPLATE = "<section class='ev-body'>{waiting}</section><div class='ev-message'></div>"
Options = list[tuple[str, str]]  # (label, value)


def drawn_part(
    services: Services,
    w: Wording,
    value: str | None,
    elem_id: str,
    draw: Callable[[JsonObject], Html],
    act: Callable[[JsonObject], JsonObject],
    waiting: str = "",
) -> gr.HTML:
    """Return a part of a page that `draw` draws, again every POLL_MS or IDLE_POLL_MS and sent only if it changed, and
    whose buttons `act` answers, with an answer for the script. Both get any JSON from a browser, and may raise
    GarageError, which is shown. `act` also gets IS_LOCAL: whether the browser runs on this PC. value: initial value of
    the component. waiting: HTML that is shown until it is first drawn."""

    def redraw(request: object) -> JsonObject:
        """Return the mark of the HTML, the wait until the next request in ms ("wait_ms"), and the HTML itself if it has
        changed since request["mark"]."""
        request = request if isinstance(request, dict) else {}
        try:
            html = draw(request)
        except GarageError as error:
            html = notice(w.render(error.message))
        mark = hashlib.blake2b(html.encode("utf-8", "replace"), digest_size=8).hexdigest()
        at_work = (services.evaluating.progress().at_work, services.makings.progress().at_work)
        is_busy = any(at_work) or any(each.state in ACTIVE for each in services.downloads.rows())
        wait = {"wait_ms": POLL_MS if is_busy else IDLE_POLL_MS, "mark": mark}
        return wait if request.get("mark") == mark else wait | {"html": html}

    def press(request: object, browser: gr.Request | None = None) -> JsonObject:
        """Answer a button, for any JSON from a browser; a refusal is returned as {"notice": notice}."""
        is_here = browser is not None and is_local(browser)
        try:
            return act((request if isinstance(request, dict) else {}) | {IS_LOCAL: is_here})
        except GarageError as error:
            return {"notice": notice(w.render(error.message))}

    return gr.HTML(
        value=value,
        html_template=TEMPLATE.format(waiting=waiting),
        css_template=(ASSETS / "drawn_part.css").read_text("utf-8"),
        js_on_load=(ASSETS / "drawn_part.js").read_text("utf-8"),
        server_functions=[redraw, press],
        apply_default_css=False,
        elem_id=elem_id,
    )


def fields_sent(request: JsonObject) -> JsonObject:
    """Return the values of a part's fields by name, from any JSON that a browser sent; {} if it has none."""
    fields = request.get("fields")
    return fields if isinstance(fields, dict) else {}


def select(
    name: str, label: str, options: Sequence[tuple[str, str]], chosen: str, owner: str = "", **attributes: str | None
) -> Html:
    """Return a labelled list of choices. options: (label, value). chosen: the selected value. owner: the value that the
    options depend on; another one makes another field, which forgets what was chosen. attributes: of the select
    element, such as data_act, the action when it changes."""
    listed = (tag("option", text, value=value, selected=value == chosen) for text, value in options)
    id = f"ep-{name}-{owner}" if owner else f"ep-{name}"
    return tag(
        "label",
        tag("span", label),
        tag("select", *listed, name_=name, id=id, **attributes),
        class_="ep-field",
        id=f"{id}-field",
    )
