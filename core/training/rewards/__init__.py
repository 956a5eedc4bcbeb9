"""Training by rewards (objective grpo): answers are drawn and judged, then weighed for the step; held-out reward.
Torch, except in `judging_worker`.

Imports: as core.training.
"""
