"""The workspace, the folder that holds everything the app writes: its folders, owner and preferences, whether it is
writable, and moving it to another drive.

Imports: the ground. Add a choice for the whole workspace: a field of `preferences.Preferences`.
"""
