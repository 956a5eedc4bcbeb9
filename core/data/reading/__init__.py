"""Rows from files in any encoding: `sniff` recognizes a file, the others read it, `reader.read_rows` is the entry
point.

Imports: system (a process of its own for spreadsheets) and the ground. Add a file type: its suffix in `rows.SUFFIXES`,
how it is recognised in `sniff`, its rows in a function that `reader` calls. Several files are one set by `several`.
"""
