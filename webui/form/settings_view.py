"""The fields of a recipe's settings. The browser fills them in and keeps what a person edits (assets/settings.js), so
that all of them are two components of gradio and no event."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from core.recipe import OF_PREFERENCES
from webui.form.fields import AT_HAND, AUTO, FOLDED, NONE, SECTIONS, FieldKind, Key, kind_of, label_of, name_of, step_of
from webui.kit.html import Html, join, tag
from webui.kit.theme import ASSETS
from webui.kit.wording import Wording, field_of

OBJECTIVE: Key = ("train", "objective")
EXPERTS: Key = ("adapter", "target_parameters")
OFFERED = {"grpo"}  # choices that need judges: offered in the data step, and in the list only while chosen
# Shown where a model has experts, or rows have a worse answer.
HIDDEN_AT_FIRST = {EXPERTS, *(("train", name) for name in OF_PREFERENCES)}


def at_hand(w: Wording) -> gr.HTML:
    """Return the component with the fields of the objective and of the settings that people change most."""
    return _component(join([_field(OBJECTIVE, w), _grid(AT_HAND, w)]), "plan-at-hand")


def all_settings(w: Wording) -> gr.HTML:
    """Return the component with all settings that are not at hand, by section, with a search."""
    search = tag(
        "div",
        tag("label", w.t("wizard.search"), for_="settings-search-field"),
        tag("span", w.t("wizard.search_info"), class_="lg-setting-help", id="settings-search-help"),
        tag("input", type="search", id="settings-search-field", aria_describedby="settings-search-help"),
        id="settings-search",
    )
    sections = (
        join([tag("h2", w.t(f"wizard.section_{section}")), _grid([key for key in FOLDED if key[0] == section], w)])
        for section in SECTIONS
    )
    none = tag("p", w.t("wizard.search_none"), id="settings-none", hidden=True, role="status")
    return _component(join([search, *sections, none]), "settings")


def _component(fields: Html, elem_id: str) -> gr.HTML:
    """Return the component of these fields, with their script."""
    script = (ASSETS / "settings.js").read_text("utf-8")
    return gr.HTML(fields, js_on_load=script, apply_default_css=False, elem_id=elem_id, elem_classes="lg-settings")


def _grid(keys: Sequence[Key], w: Wording) -> Html:
    return tag("div", *(_field(key, w) for key in keys), class_="lg-setting-grid")


def _field(key: Key, w: Wording) -> Html:
    """Return a setting's input with its label, its name in the libraries, and its help; hidden if in
    HIDDEN_AT_FIRST."""
    section, name = key
    kind, id = kind_of(key), f"setting-{name}"
    label = tag("label", label_of(name, w), for_=f"{id}-field")
    help = tag("span", w.setting_help(section, name), class_="lg-setting-help", id=f"{id}-help")
    parts = [_input(key, kind, w), label] if kind.type is bool and not kind.optional else [label]
    parts = [tag("span", *parts, class_="lg-setting-name"), help]
    if kind.type is not bool or kind.optional:
        parts.append(_input(key, kind, w))
    return tag("div", *parts, class_="lg-setting", id=id, hidden=key in HIDDEN_AT_FIRST)


def _input(key: Key, kind: FieldKind, w: Wording) -> Html:
    """Return the input of a setting: a list of choices, a checkbox, lines, a text or a number, with its default."""
    id, default = f"setting-{key[1]}", field_of(*key).default
    same = {"id": f"{id}-field", "data_setting": name_of(key), "aria_describedby": f"{id}-help"}
    if kind.choices or (kind.type is bool and kind.optional):
        chosen = AUTO if default is None else default
        options = (
            tag("option", text, value=value, selected=value == chosen, hidden=value in OFFERED)
            for text, value in _choices(kind, w)
        )
        return tag("select", *options, **same)
    if kind.type is bool:
        return tag("input", type="checkbox", checked=bool(default), **same)
    if kind.many:
        return tag("textarea", rows=2, maxlength=2000, **same)
    if kind.type is str:
        return tag("input", type="text", maxlength=400, value=default or "", **same)
    if kind.optional:
        empty = w.t("wizard.none" if key in NONE else "wizard.auto")
        return tag("input", type="text", maxlength=20, inputmode="decimal", placeholder=empty, **same)
    return tag("input", type="number", step=step_of(default), value=default, **same)


def _choices(kind: FieldKind, w: Wording) -> list[tuple[str, str]]:
    """Return (text, value) of a setting's choices, first "automatic" if the plan may choose."""
    named = [(f"wizard.choice_{choice}", choice) for choice in kind.choices or ("yes", "no")]
    auto = [(w.t("wizard.auto"), AUTO)] if kind.optional else []
    return [*auto, *((w.t(key) if w.knows(key) else choice, choice) for key, choice in named)]
