"""The origin of a request."""

from __future__ import annotations

from ipaddress import ip_address

import gradio as gr

IS_LOCAL = "is_here"  # in values from a page: true if its browser runs on this PC


def is_local(request: gr.Request) -> bool:
    """Return whether the browser runs on the PC that serves the page; False if its address is unknown."""
    try:
        return ip_address(request.client.host).is_loopback
    except (AttributeError, ValueError):
        return False
