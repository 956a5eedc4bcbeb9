"""LoRA Garage as a wheel: core, webui, presets and launch.py lie in this package side by side, as in a checkout;
nothing of them is imported by it.

By this file they know that pip or uv made their environment (`core.INSTALLED`, launch.py). The command is
`lora-garage`.
"""
