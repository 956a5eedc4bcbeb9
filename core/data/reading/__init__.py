"""Rows from files in any encoding: `sniff` recognizes a file, the others read it, `reader.read_rows` is the entry
point.

Imports: system (a process of its own for spreadsheets) and the ground. To add a file type: its suffix in
`suffixes.SUFFIXES`, its recognition in `sniff`, its rows in a function of `raw_rows.READERS`. `folders` finds the
files of one dataset, `part_rows` joins their rows.
"""
