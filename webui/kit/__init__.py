"""Shared by all pages: escaped HTML, numbers as text, theme, texts, the base class of a panel, parts that update with
the clock.

Imports: state, core. Add a sentence: both catalogues in webui/locales, equal keys.
"""
