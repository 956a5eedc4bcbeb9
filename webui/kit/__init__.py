"""What all pages share: escaped HTML, numbers as text, theme, words, the base of a panel, parts that update
with the clock.

Imports: state, core. Add a sentence: both catalogues in webui/locales, equal keys.
"""
