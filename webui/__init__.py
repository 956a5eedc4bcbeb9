"""The page: Gradio, and nothing but the page. Work is in core; this package builds widgets, words and wires.

Importing it prepares the environment for gradio, which therefore must not be imported before it.
"""

from webui.server.gradio import prepare

prepare()
