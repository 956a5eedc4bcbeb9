"""Work on large files and datasets in a separate process: `apart` calls it, `worker` is it. No torch.

Add an act: a function of `worker.ACTS`; where it is decided to ask for it, `apart.is_for`.
Imports: the rest of core.data.
"""
