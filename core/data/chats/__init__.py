"""Exported chats, as conversations in which one person's messages (the voice) are the answers.

Imports: core/data/reading, core/data/shapes/left_out. Every format gives one noun, `said.Said`; `overview` counts them,
`rows` makes rows of them, `stand_ins` replaces who others are. Add a format: a function that gives Said in `whatsapp`,
`messengers`, `assistants` or beside them, and how it is known by its content in `kinds`.
"""
