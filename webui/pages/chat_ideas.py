"""Suggested questions of an empty chat, from those of a run that it does not learn. A press sends one."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import GarageError
from core.runs import scenes
from webui.kit.html import Html, placeholder, tag
from webui.kit.wording import Wording
from webui.pages.chat_choices import run_id_of
from webui.state.services import Services

MOST, MAX_CHARACTERS = 3, 120
# Types and sends the question.
ASK = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-ask]"), box = document.querySelector("#chat-message textarea");
  if (!button || !box) return;
  box.value = button.dataset.ask;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => document.querySelector("#chat-send")?.click());
});
"""


def ideas(services: Services, target: object, w: Wording) -> Sequence[str]:
    """Return up to MOST short questions: those that the run did not learn, then general ones (presets/neutral.yaml);
    only these for a base model, or a run that is gone."""
    run_id = run_id_of(target)
    own: list[str] = []
    if run_id is not None:
        try:
            run_scenes = scenes.read(services.runs.get(run_id))
        except GarageError:
            run_scenes = None
        every = (*run_scenes.held_out, *run_scenes.scenes) if run_scenes else ()
        unlearned = (scene for scene in every if scene.turns and scene.source != "trained")
        own = [scene.question for scene in unlearned if len(scene.question) <= MAX_CHARACTERS]
    general = scenes.neutral_prompts().prompts["zh" if w.language == "zh" else "en"]
    return list(dict.fromkeys([*own, *general]))[:MOST]


def empty(services: Services, target: object, w: Wording) -> Html:
    """Return the text and the suggestions of an empty conversation."""
    buttons = (
        tag("button", question, type="button", class_="lg-idea", data_ask=question, dir="auto")
        for question in ideas(services, target, w)
    )
    key = "empty_base" if run_id_of(target) is None else "empty"
    return tag(
        "div",
        placeholder(w.t(f"chat_page.{key}_text"), w.t(f"chat_page.{key}_title")),
        tag("div", *buttons, class_="lg-ideas"),
    )
