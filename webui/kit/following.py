"""A list of choices that follow the clock."""

from __future__ import annotations

from typing import Any

import gradio as gr


class FollowingDropdown(gr.Dropdown):
    """A choice that no longer exists reaches the handler, which can report it. Gradio's own refuses it in English,
    before any handler (6.31)."""

    is_template = True  # the browser draws it as gradio's Dropdown

    def preprocess(self, payload: Any) -> str | None:
        """Return the chosen value without gradio's check that it is among the choices; None unless it is a text."""
        return payload if isinstance(payload, str) else None
