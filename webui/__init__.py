"""The page, made with Gradio. The work is done in core; this package builds widgets, texts and event handlers.

Importing it prepares the environment for gradio, which therefore must not be imported before it.
"""

from webui.server.gradio import prepare

prepare()
