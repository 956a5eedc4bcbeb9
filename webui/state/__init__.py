"""What pages are drawn from: the services, one snapshot of everything, the numbers of curves. No gradio.

Imports: core. A method that writes: its name in `services.Services.open`, or a second app could use it (tests/unit/test_owner.py).
"""
