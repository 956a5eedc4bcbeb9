"""Where a request comes from."""

from __future__ import annotations

from ipaddress import ip_address

import gradio as gr


def is_here(request: gr.Request) -> bool:
    """Whether the browser is on the PC that serves the page."""
    try:
        return ip_address(request.client.host).is_loopback
    except (AttributeError, ValueError):
        return False
