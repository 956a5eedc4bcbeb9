"""A verdict of the advice as a badge, and the methods by the names that everybody uses."""

from __future__ import annotations

from core.recipe import Adapter
from webui.kit.html import Html, tag
from webui.kit.wording import Wording

METHODS = {"lora": "LoRA", "qlora": "QLoRA"}
VARIANTS = {"load_in_8bit": "int8", "use_dora": "DoRA", "is_pissa": "PiSSA", "use_rslora": "rsLoRA"}
TONES = {"fits": "ok", "tight": "warn", "does_not_fit": "bad", "unknown": "plain"}


def badge(verdict: str, w: Wording) -> Html:
    return tag("span", w.t(f"plan_view.verdict_{verdict}"), class_=f"lg-badge lg-{TONES[verdict]}")


def method_name(settings: Adapter) -> str:
    """ "QLoRA", or with what makes it a variant: "LoRA · int8 · DoRA"."""
    return " · ".join([METHODS[settings.method], *(word for name, word in VARIANTS.items() if getattr(settings, name, False))])


def gib(value: float) -> str:
    """As few figures as matter: 0.03, 5.2, 120."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"
