"""Work on large files and sets in a process of its own: who asks (`apart`), who does it (`worker`). No torch.

Add an act: a function of `worker.ACTS`; where it is decided to ask for it, `apart.is_for`.
Imports: the rest of core.data.
"""
