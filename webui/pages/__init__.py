"""The tabs, each with its widgets and event handlers: Train, Chat, Data, Runs, Settings, and the banner above them.

Imports: form, run, kit, state, core. Add a tab: a class here with `build` and `wire`, and its place in webui/app.
"""
