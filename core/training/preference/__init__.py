"""What a run needs that compares answers, besides a step of it: what the adapter was before (reference). Imports torch: workers only."""
