"""Exports on the page: a running one with its phase and time left; a finished one with its verification, the commands
to use it and its buttons. Pure functions of the records of core.export."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from core.export import other_programs
from core.export.ollama.adding import AddStatus
from core.export.records import ExportCheck, ExportRequest, ExportResult, ExportStatus
from core.system import file_window
from webui.kit import format
from webui.kit.html import Html, bar, facts, join, muted, notice, tag
from webui.kit.wording import Wording

# A button's act and the export's name; copying needs no server. Without access to the clipboard (a page over http from
# another PC) the text is selected, to be copied by hand.
PRESS = """
element.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  if (button.dataset.act !== "copy") {
    if (button.dataset.sure && !confirm(button.dataset.sure)) return;
    window.loraGarageExport = button.dataset.act + " " + button.dataset.name;
    trigger("select", { value: window.loraGarageExport });
    return;
  }
  const words = button.parentElement.querySelector("code");
  getSelection().selectAllChildren(words);
  try { await navigator.clipboard.writeText(words.textContent); } catch { return; }
  button.textContent = button.dataset.done;
});
"""
PRESSED = """() => [window.loraGarageExport ?? ""]"""


def form_of(kind: str, quant: str | None) -> str:
    """Return "gguf:q4_k_m", or the kind alone."""
    return f"{kind}:{quant}" if quant else kind


def name_of(form: str, w: Wording) -> str:
    """Return a form's name, such as "GGUF Q4_K_M" or "Merged model". form: as from `form_of`."""
    kind, _, quant = form.partition(":")
    return f"{w.t(f'way_out.short_{kind}')} {quant.upper()}".strip()


def export_name(what: ExportRequest | ExportResult, w: Wording) -> str:
    """Return the name of an export's form, with a strength other than 1: "Merged model × 0.8"."""
    name = name_of(form_of(what.kind, what.quant), w)
    return name if what.strength == 1 else f"{name} × {format.number(w, what.strength)}"


def attempt(name: str, status: ExportStatus, left: tuple[float | None, float | None], w: Wording) -> Html:
    """Return a running export with its phase, per cent and time left, or the message of one that failed or was
    cancelled. left: seconds left of the phase, and of the whole export."""
    if not status.active:
        return notice(
            w.t("way_out.ended", form=name, message=w.render(status.message)),
            "plain" if status.state == "cancelled" else "bad",
        )
    phase = w.render(status.stage_text)
    percent = None if status.fraction is None else round(100 * status.fraction)
    of_phase, of_all = left
    time_left = format.time_left(w, of_all) or (
        w.t("way_out.this_part", left=format.time_left(w, of_phase)) if of_phase else ""
    )
    numbers = " · ".join(part for part in ("" if percent is None else f"{percent} %", time_left) if part)
    return tag(
        "div",
        tag("p", tag("strong", name, ": ", phase), tag("span", numbers, class_="lg-numbers"), class_="lg-phase"),
        bar(phase, percent),
        muted(w.t("way_out.may_close")),
        muted(w.render(status.awake)) if status.awake else None,
        class_="lg-run",
    )


def result(done: ExportResult, folder: Path, programs: Collection[str], w: Wording) -> Html:
    """Return a finished export: its verification, folder, and how to use it. programs: which of ollama and lmstudio are
    on this PC."""
    size = w.t("way_out.files", files=len(done.files), size=format.bytes_used(w, done.bytes))
    first, *others = other_programs.commands(done, folder)
    return tag(
        "div",
        tag("div", tag("h3", export_name(done, w)), verdict(done.check, w), class_="lg-run-head"),
        muted(" · ".join((format.moment(w, done.created), size, done.base))),
        tag("p", w.render(done.check.summary)),
        _to_copy(first, w),
        tag(
            "details",
            tag("summary", w.t("way_out.other_programs")),
            *(_to_copy(each, w) for each in others),
            class_="lg-fold",
        )
        if others
        else None,
        facts([(w.t("way_out.folder"), _copied(str(folder), w))]),
        *(muted(w.render(note)) for note in done.notes),
        differences(done.check, w),
        _buttons(done, programs, w),
        class_="lg-export",
    )


def ollama_notice(status: AddStatus | None, w: Wording) -> Html:
    """Return the progress of an export on its way into Ollama, or the result; empty without one."""
    if status is None:
        return join([])
    return notice(w.render(status.message), "plain" if status.active else "ok" if status.answered else "bad")


def verdict(check: ExportCheck, w: Wording) -> Html:
    """Return the badge of whether the export passed its check."""
    key, tone = ("proven", "ok") if check.passed else ("not_proven", "bad")
    return tag("span", w.t(f"way_out.{key}"), class_=f"lg-badge lg-{tone}")


def _to_copy(command: tuple[str, str], w: Wording) -> Html:
    """Return a command below its explanation, with a button that copies it. command: (key of the explanation,
    command)."""
    key, words = command
    return join([tag("p", w.t(f"elsewhere.{key}"), class_="lg-quiet"), _copied(words, w)])


def _copied(words: str, w: Wording) -> Html:
    """Return words with a button that copies them."""
    button = tag(
        "button",
        w.t("way_out.copy"),
        type="button",
        data_act="copy",
        data_done=w.t("way_out.copied"),
        class_="lg-small",
    )
    return tag("div", tag("code", words), button, class_="lg-copy")


def _buttons(done: ExportResult, programs: Collection[str], w: Wording) -> Html:
    """Return the buttons of a finished export: give a GGUF file to each of the programs ollama and lmstudio, open its
    folder, delete it."""

    def action_button(act: str, **more: str) -> Html:
        label = w.t(f"way_out.{act}")
        return tag("button", label, type="button", data_act=act, data_name=done.name, class_="lg-small", **more)

    sure = w.t("way_out.sure", name=done.name, size=format.bytes_used(w, done.bytes))
    return tag(
        "div",
        *(action_button(each) for each in ("ollama", "lmstudio") if done.kind == "gguf" and each in programs),
        action_button("open") if file_window.opener() else None,
        action_button("delete", data_sure=sure),
        class_="lg-acts",
    )


def differences(check: ExportCheck, w: Wording) -> Html | None:
    """Return the answers that differ, side by side with the question; folded; None without any."""
    if not check.differences:
        return None
    pairs = [
        facts(
            [
                (w.t("way_out.asked"), item.prompt),
                (w.t("way_out.by_adapter"), item.adapter),
                (w.t("way_out.by_export"), item.export),
            ]
        )
        for item in check.differences
    ]
    return tag("details", tag("summary", w.t("way_out.differences", count=len(pairs))), *pairs, class_="lg-fold")
