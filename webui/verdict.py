"""A verdict of the advice as a badge, and the methods by the names that everybody uses."""

from __future__ import annotations

from webui.markup import Html, tag
from webui.wording import Wording

METHODS = {"lora": "LoRA", "qlora": "QLoRA"}
TONES = {"fits": "ok", "tight": "warn", "does_not_fit": "bad", "unknown": "plain"}


def badge(verdict: str, w: Wording) -> Html:
    return tag("span", w.t(f"plan_view.verdict_{verdict}"), class_=f"lg-badge lg-{TONES[verdict]}")


def gib(value: float) -> str:
    """As few figures as matter: 0.03, 5.2, 120."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"
