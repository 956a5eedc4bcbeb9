"""A dataset of the workspace: its rows, read once, and its tokens, counted once. No torch.

`inspection` reads a file and says what is in it, `rows` keeps what became of each row, `tokens` what a tokenizer made
of it. Both lie on disk and are mapped into memory, so that a million rows take none of it; `readings` knows what is
kept of which file, `info` is a set in a list. `gathered` adds several files as one set, by way of `store`.
Imports: the rest of core.data below `store`.
"""
