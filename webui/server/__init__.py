"""The server: which requests are answered, for whom and in which language; patches of gradio before it loads; the log.

Imports: kit, state, core. A patch of gradio: `gradio`, of its script in the browser: `script`, with a test that fails
with its reason when upstream changes.
"""
