"""Exported chats, as conversations in which one person's messages (the voice) are the answers.

Imports: core/data/reading, core/data/shapes/left_out. Every format is read as `exported_message.ExportedMessage`;
`overview` counts messages, `chat_rows` makes rows of them, `stand_ins` replaces other people's names. To add a format:
a function that yields ExportedMessage in `whatsapp`, `messengers`, `assistants` or a new module, and its recognition in
`kinds`.
"""
