"""Datasets of the workspace: their rows, read once, and their tokens, counted once. No torch.

`inspection` reads a file and reports its contents and problems, `stored_rows` keeps the result of each row, `tokens`
the token ids of a tokenizer. Rows and token ids lie on disk as Arrow and are mapped into memory; of a million rows a
run holds some 70 MB of numbers. `readings` finds what is kept of a file, `info` describes a dataset in a list.
`gathered` adds several files as one dataset through `store`. Imports: the rest of core.data below `store`.
"""
