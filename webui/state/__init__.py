"""What pages are drawn from: the services, one snapshot of everything, the numbers of curves. No gradio.

Imports: core.
"""
