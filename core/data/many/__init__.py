"""What depends on the number of rows, held so that memory does not: columns of numbers that are mapped, pieces laid out in them, rows kept apart. No torch.

Add a number that a run holds of each row: a field of `laid_out.EXAMPLES` or `PLACES`.
Imports: core.data.sets.
"""
