"""A dataset of the workspace: its rows, read once, and its tokens, counted once. No torch.

`inspection` reads a file and says what is in it, `rows` keeps what became of each row, `tokens` what a tokenizer made
of it. Rows and token ids lie on disk as Arrow and are mapped into memory; of a million rows a run holds some 70 MB of
numbers. `readings` knows what is kept of which file, `info` is a set in a list. `gathered` adds several files as one
set, by way of `store`.
Imports: the rest of core.data below `store`.
"""
