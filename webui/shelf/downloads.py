"""The list of downloads on the page: progress and buttons, updated with the clock. Shown only while it has entries.

It stands above the form and stays while a run trains. core/hub/downloads does the work of the buttons.
"""

from __future__ import annotations

import json

import gradio as gr

from core.errors import GarageError, ModelError
from core.files import JsonObject
from core.hub.cached import REPO_ID
from core.hub.downloads import ENDED, Download
from core.messages import Message
from webui.kit import format
from webui.kit.format import grouped
from webui.kit.html import Html, bar, join, notice, success, tag
from webui.kit.live import CONTROL, EACH, LivePart, Poller, Update, shown
from webui.kit.panel import Panel
from webui.kit.wording import Wording
from webui.state.services import Services

# A press of a row's button. The list is drawn again each second, maybe while a button is held down: a release over the
# same button counts as a press, and the focused button keeps the focus.
PRESS = """
const named = (target) => { const button = target.closest?.("button[data-act]"); 
  return button ? JSON.stringify({ ...button.dataset }) : ""; };
let down = "", focused = "";
const press = (name) => { window.loraGarageDownload = name; trigger("select", { value: name }); };
element.addEventListener("pointerdown", (event) => { down = named(event.target); });
element.addEventListener("pointerup", (event) => { if (down && down === named(event.target)) press(down); down = ""; });
element.addEventListener("click", (event) => { 
  if (event.detail === 0 && named(event.target)) press(named(event.target)); });
element.addEventListener("focusin", (event) => { focused = named(event.target); });
new MutationObserver(() => {
  if (!focused || document.activeElement !== document.body) return;
  const same = [...element.querySelectorAll("button[data-act]")].find((button) => named(button) === focused);
  if (same) same.focus();
}).observe(element, { childList: true, subtree: true });
"""
# Cancelling deletes the downloaded part.
PRESSED = """() => {
  const name = window.loraGarageDownload ?? "", { sure } = JSON.parse(name || "{}");
  return !sure || confirm(sure) ? [name] : [""];
}"""
ACTS: dict[str, tuple[str, ...]] = {
    "waiting": ("pause", "cancel"),
    "running": ("pause", "cancel"),
    "again": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "failed": ("retry", "cancel"),
    "done": ("remove",),
}


class DownloadsCard(Panel):
    """The card with the list of downloads, their progress and buttons; hidden while there are none."""

    def build(self) -> None:
        with gr.Column(elem_classes="lg-card", visible=False, elem_id="downloads") as self.card:
            gr.HTML(tag("h2", self.w.t("downloads_view.title")))
            self.list = gr.HTML("", elem_id="downloads-list", js_on_load=PRESS, apply_default_css=False)
            self.pressed = gr.Textbox(visible=False)  # filled in by the browser
            self.notice = gr.HTML("", visible=False, elem_id="downloads-notice")

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.card, lambda context: gr.update(visible=bool(context.snapshot.downloads))),
            LivePart(self.list, lambda context: gr.update(value=rows(context.snapshot.downloads, self.w))),
        ]

    def wire(self, poller: Poller) -> None:
        """Connect the buttons of the list; cancelling asks for confirmation."""
        poller.after(self.list.select(self.act, [self.pressed], [self.notice], js=PRESSED, **EACH, **CONTROL))

    def act(self, pressed: object) -> Update:
        """Carry out the pressed button on its download, and return the notice, empty unless it failed. pressed: its
        data (act, repo, revision) as JSON; anything else does nothing."""
        try:
            button = json.loads(pressed) if isinstance(pressed, str) and pressed else {}
            act_on(self.services, button if isinstance(button, dict) else {})
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        except (ValueError, RecursionError):
            pass
        return shown("")


def act_on(services: Services, button: JsonObject) -> None:
    """Carry out a button (act, repo, revision, of any JSON from a browser) on its download; nothing without repo and
    revision. Raises ModelError for an unknown act or download."""
    act, repo, revision = (button.get(name) for name in ("act", "repo", "revision"))
    if not isinstance(repo, str) or not isinstance(revision, str):
        return
    downloads = services.downloads
    acts = {
        "pause": downloads.pause, "resume": downloads.resume, "retry": downloads.resume, "cancel": downloads.cancel,
        "remove": downloads.cancel, "download": downloads.start,
    }  # fmt: skip
    if act not in acts:
        raise ModelError("downloads.not_there", repo=repo[:100], there=["-"])
    acts[act](repo, revision)


def rows(downloads: tuple[Download, ...], w: Wording) -> Html:
    return tag("ul", *(tag("li", row(each, w)) for each in downloads), class_="lg-downloads")


def row(each: Download, w: Wording) -> Html:
    """Return a download: its name and state, progress, message and buttons."""
    tone = {"failed": "bad", "again": "warn", "done": "ok"}.get(each.state, "plain")
    head = tag(
        "div",
        tag("strong", each.name),
        tag("span", w.t("downloads_view.a_set"), class_="lg-badge lg-plain") if each.part else None,
        tag("span", w.t("way_out.short_adapter"), class_="lg-badge lg-plain") if each.adapter is not None else None,
        tag("span", w.t(f"downloads_view.state_{each.state}"), class_=f"lg-badge lg-{tone}"),
        class_="lg-shelf-head",
    )
    figures = numbers(each, w)
    message = notice(w.render(each.message), "bad" if each.state == "failed" else "warn") if each.message else None
    if each.adapter is not None and each.state == "done":
        message = success(w.t("models_page.brought_in", name=each.result))
    base = base_button(each.message, w) if each.message else None
    return join(
        [head, how_far(each), tag("p", figures, class_="lg-numbers") if figures else None, message, base,
         buttons(each, w)]
    )  # fmt: skip


def base_button(message: Message, w: Wording) -> Html | None:
    """Return the button that downloads the base which an adapter needs; None for any other message."""
    base = message.params.get("base")
    if message.key != "foreign.base_missing" or not isinstance(base, str) or not REPO_ID.fullmatch(base):
        return None
    label = f"{w.t('models_page.download')}: {base}"
    return tag("button", label, type="button", data_act="download", data_repo=base, data_revision="main",
        class_="lg-small")  # fmt: skip


def how_far(each: Download) -> Html | None:
    """Return a progress bar; None for a finished download, or one of unknown size."""
    if each.state == "done" or not each.total:
        return None
    return bar(each.name, min(100, int(100 * each.done / each.total)))


def numbers(each: Download, w: Wording) -> str:
    """Return a download's numbers: "2.7 GB of 8.1 GB · 34 % · 12 MB/s · about 8 min left"; of a finished one only the
    size.

    A set of data may be counted in rows. With an unknown size a sentence about that while it runs, else "".
    """
    if not each.total:
        return w.t("downloads_view.size_unknown") if each.state == "running" else ""
    in_rows = each.unit == "rows"
    if each.state == "done":
        return format.rows(w, each.total) if in_rows else format.bytes_used(w, each.total)
    amount = grouped if in_rows else format.bytes_used
    total = format.rows(w, each.total) if in_rows else format.bytes_used(w, each.total)
    parts = [
        w.t("units.of", done=amount(w, each.done), total=total),
        f"{int(100 * each.done / each.total)} %",
        w.t("downloads_view.speed", speed=format.bytes_used(w, each.bytes_per_s))
        if each.bytes_per_s and not in_rows
        else "",
        format.time_left(w, each.seconds_left) if each.state not in (*ENDED, "paused") else "",
    ]
    return " · ".join(part for part in parts if part)


def buttons(each: Download, w: Wording) -> Html:
    """Return the buttons that a download's state allows."""
    items = [
        tag(
            "button", w.t(f"downloads_view.{act}"), type="button", data_act=act, data_repo=each.repo,
            data_revision=each.revision, data_sure=w.t("downloads_view.sure") if act == "cancel" else None,
            aria_label=w.t("downloads_view.act_on", act=w.t(f"downloads_view.{act}"), repo=each.name),
            class_="lg-small",
        )
        for act in ACTS[each.state]
    ]  # fmt: skip
    return tag("div", *items, class_="lg-shelf-head")
