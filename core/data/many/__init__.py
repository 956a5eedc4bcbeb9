"""Per-row numbers of a run, kept out of memory: mapped columns, the pieces in them, the validation split. No torch.

Add a number that a run holds of each row: a field of `laid_out.EXAMPLES` or `PLACES`.
Imports: core.data.sets.
"""
