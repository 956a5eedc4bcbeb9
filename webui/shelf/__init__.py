"""Where a person chooses a model: the catalogue's rows, and what the hub found for the same words.

Imports: kit, state, core. Add what a row says: `rows`, with its sentence. What is understood of words is core/advice's.
"""
