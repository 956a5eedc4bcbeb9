"""The server: allowed requests, access control and language; patches of gradio before it loads; the log.

Imports: kit, state, core. A patch of gradio belongs into `gradio`, one of its script in the browser into `script`, each
with a test that fails with the reason when upstream changes.
"""
