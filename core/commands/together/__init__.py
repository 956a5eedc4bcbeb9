"""A run on several PCs, as their command lines have it: `options` of the main one, `joining` on each other.

Imports: as core.commands.
"""
