"""A labelled list of choices, as HTML of the server."""

from __future__ import annotations

from webui.kit.html import Html, tag

Options = list[tuple[str, str]]  # (label, value)


def select(name: str, label: str, options: Options, chosen: str, owner: str = "", **attributes: str | None) -> Html:
    """Return a field. owner: what its options depend on; another one makes another field. attributes: such as data_act,
    which is pressed when it changes."""
    listed = (tag("option", text, value=value, selected=value == chosen) for text, value in options)
    id = f"ep-{name}-{owner}" if owner else f"ep-{name}"
    return tag(
        "label",
        tag("span", label),
        tag("select", *listed, name_=name, id=id, **attributes),
        class_="ep-field",
        id=f"{id}-field",
    )
