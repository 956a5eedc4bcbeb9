"""Which requests are answered at all, to whom and in which language, what of gradio is patched before it loads, and the log.

Imports: kit, state, core. A patch of gradio: `gradio`, of its script in the browser: `script`, with a test that fails with its reason when upstream changes.
"""
