"""The page's look: gradio's theme variables where they exist, our style sheets for the rest. Contrast is 4.5:1 or
better."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).parent.parent / "assets"
SHEETS = ("page.css", "wizard.css", "learned.css", "shelf.css", "way_out.css", "duel.css")
# In the light, and in the dark.
COLOURS = {
    "body_background_fill": ("#f6f5f2", "#161614"),
    "body_text_color": ("#292524", "#edebe8"),
    "body_text_color_subdued": ("#57534e", "#c9c4bd"),
    "background_fill_primary": ("#ffffff", "#1f1e1c"),
    "background_fill_secondary": ("#faf9f7", "#262522"),
    "border_color_primary": ("#e2dfd9", "#3a3834"),
    "block_background_fill": ("#ffffff", "#1f1e1c"),
    "block_label_text_color": ("*neutral_700", "*neutral_200"),
    "block_title_text_color": ("*neutral_800", "*neutral_100"),
    "block_info_text_color": ("#57534e", "#c9c4bd"),
    "input_background_fill": ("#ffffff", "#262522"),
    "input_border_color": ("#8d8780", "#7b766f"),
    "input_placeholder_color": ("#6b665f", "#a8a39b"),
    "color_accent_soft": ("*primary_50", "#12332f"),
    "link_text_color": ("*primary_700", "*primary_300"),
    "checkbox_background_color_selected": ("*primary_700", "*primary_600"),
    "checkbox_border_color": ("#8d8780", "#a8a39b"),
    "checkbox_label_background_fill": ("#ffffff", "#262522"),
    "checkbox_label_background_fill_selected": ("*primary_50", "#12332f"),
    "checkbox_label_border_color": ("#d5d1ca", "#4a4742"),
    "checkbox_label_border_color_selected": ("*primary_700", "*primary_400"),
    "checkbox_label_text_color_selected": ("#292524", "#edebe8"),
    "button_primary_background_fill": ("*primary_700", "*primary_700"),
    "button_primary_background_fill_hover": ("*primary_800", "*primary_800"),
    "button_secondary_background_fill": ("#eceae5", "#34322e"),
    "button_secondary_background_fill_hover": ("#e0ddd6", "#403d38"),
    "button_cancel_background_fill": ("#b91c1c", "#b91c1c"),
    "button_cancel_background_fill_hover": ("#991b1b", "#991b1b"),
    "button_cancel_text_color": ("#ffffff", "#ffffff"),
    "error_text_color": ("#b91c1c", "#fca5a5"),
}
IN_BOTH = {
    "block_border_width": "1px",
    "block_shadow": "none",
    "block_title_text_weight": "600",
    "color_accent": "*primary_700",
    "button_primary_text_color": "#ffffff",
}


def styles() -> str:
    return "\n".join((ASSETS / sheet).read_text("utf-8") for sheet in SHEETS)


def theme() -> gr.themes.Base:
    colors = gr.themes.colors
    return gr.themes.Default(
        primary_hue=colors.teal,
        neutral_hue=colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        **IN_BOTH,
        **{name: light for name, (light, _) in COLOURS.items()},
        **{f"{name}_dark": dark for name, (_, dark) in COLOURS.items()},
    )
