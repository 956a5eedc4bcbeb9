"""What rows look like in the files that people have, and what is taken of them: left_out, refused, tools,
rewritten, labelled, roles, known.

Imports: core/data/reading. What a row then means is in core/data/formats and core/data/conversation.
"""
