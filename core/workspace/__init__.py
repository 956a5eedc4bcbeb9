"""The workspace, the folder that holds everything the app writes: its folders, owner and preferences, whether it can be
written, and moving it to another drive.

Imports: the ground. Add what is chosen once for a workspace: a field of `preferences.Preferences`.
"""
