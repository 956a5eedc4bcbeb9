"""What every page is made of: escaped HTML, numbers as text, looks, words, parts that follow the clock.

Imports: state, core. Add a sentence: both catalogues in webui/locales, equal keys.
"""
