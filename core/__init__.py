"""Everything of LoRA Garage that is not a screen. No gradio anywhere below; docs/map.md names each room."""
