"""The page's look: gradio's theme variables, and our style sheets for the rest. Contrast is 4.5:1 or better."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).parent.parent / "assets"
SHEETS = (
    "page.css",
    "shell.css",
    "start.css",
    "data.css",
    "wizard.css",
    "learned.css",
    "shelf.css",
    "way_out.css",
    "duel.css",
)
FONTS = (
    "Inter",
    "system-ui",
    "Segoe UI",
    "Noto Sans",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Microsoft YaHei",
    "sans-serif",
)
# (light, dark)
COLOURS = {
    "body_background_fill": ("#f6f5f2", "#0e0f11"),
    "body_text_color": ("#1f1d1b", "#eceef1"),
    "body_text_color_subdued": ("#57534e", "#a9b0ba"),
    "background_fill_primary": ("#ffffff", "#16181b"),
    "background_fill_secondary": ("#faf9f7", "#1c1f23"),
    "border_color_primary": ("#e5e2dc", "#272b31"),
    "block_background_fill": ("#ffffff", "#16181b"),
    "block_label_text_color": ("*neutral_700", "*neutral_200"),
    "block_title_text_color": ("*neutral_800", "*neutral_100"),
    "block_info_text_color": ("#57534e", "#a9b0ba"),
    "input_background_fill": ("#ffffff", "#1c1f23"),
    "input_border_color": ("#8d8780", "#6b7380"),
    "input_placeholder_color": ("#6b665f", "#99a1ac"),
    "color_accent_soft": ("*primary_50", "#12332f"),
    "link_text_color": ("*primary_700", "*primary_300"),
    "checkbox_background_color_selected": ("*primary_700", "*primary_600"),
    "checkbox_border_color": ("#8d8780", "#99a1ac"),
    "checkbox_label_background_fill": ("#ffffff", "#1c1f23"),
    "checkbox_label_background_fill_selected": ("*primary_50", "#12332f"),
    "checkbox_label_border_color": ("#d5d1ca", "#3a4048"),
    "checkbox_label_border_color_selected": ("*primary_700", "*primary_400"),
    "checkbox_label_text_color_selected": ("#1f1d1b", "#eceef1"),
    "button_primary_background_fill": ("*primary_700", "*primary_700"),
    "button_primary_background_fill_hover": ("*primary_800", "*primary_800"),
    "button_secondary_background_fill": ("#ffffff", "#16181b"),
    "button_secondary_background_fill_hover": ("#eceae5", "#272b31"),
    "button_secondary_shadow": ("inset 0 0 0 1px #d5d1ca", "inset 0 0 0 1px #3a4048"),
    "button_cancel_background_fill": ("transparent", "transparent"),
    "button_cancel_background_fill_hover": ("#fdecec", "#3b1818"),
    "button_cancel_text_color": ("#a31616", "#ffaaa5"),
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
    return "\n".join([inter(), *((ASSETS / sheet).read_text("utf-8") for sheet in SHEETS)])


def inter() -> str:
    """Return the CSS with Inter Variable (OFL; Latin letters, weights 400 to 700) embedded, so that a PC without a
    network has the font too."""
    font = b64encode((ASSETS / "fonts" / "inter-latin.woff2").read_bytes()).decode()
    return (
        "@font-face { font-family: Inter; font-weight: 400 700; font-display: swap; "
        f"src: url(data:font/woff2;base64,{font}) format('woff2'); }}"
    )


def theme() -> gr.themes.Base:
    """Return gradio's default theme with our colours, light and dark, fonts and radius."""
    colors = gr.themes.colors
    return gr.themes.Default(
        primary_hue=colors.teal,
        neutral_hue=colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=FONTS,
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        **IN_BOTH,
        **{name: light for name, (light, _) in COLOURS.items()},
        **{f"{name}_dark": dark for name, (_, dark) in COLOURS.items()},
    )
