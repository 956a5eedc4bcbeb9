"""Where a person chooses a model and has it here: the catalogue's rows, what the hub found for the same words, the
downloads, what is on disk.

Imports: kit, state, core. Add what a row says: `rows`, with its sentence. What is understood of words is core/advice's.
"""
