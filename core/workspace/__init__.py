"""The folder that holds everything the app writes: names, who has it, what was chosen for it, whether it can be written, and its
move to another drive.

Imports: the ground. Add what is chosen once for a workspace: a field of `preferences.Preferences`.
"""
