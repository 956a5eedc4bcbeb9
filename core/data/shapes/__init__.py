"""The shapes of rows in files of other programs, and their conversion to our formats: left_out, refused, tools,
rewritten, labelled, roles, known.

Imports: core/data/reading. core/data/formats and core/data/conversation define what a row then means.
"""
