"""A page as in a browser that has opened all of its tabs."""

from __future__ import annotations

from gradio import Blocks
from gradio.blocks import BlocksConfig
from gradio.context import LocalContext
from gradio.state_holder import SessionState


def all_tabs_opened(blocks: Blocks) -> BlocksConfig:
    """Draw the tabs for a session, and return its components and events."""
    config = SessionState(blocks).blocks_config
    LocalContext.blocks_config.set(config)
    for tab in blocks.renderables:
        tab.apply()
    return config
