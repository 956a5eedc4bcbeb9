"""Training by rewards (objective grpo): answers are drawn and judged, then weighed for the step; held-out reward.
Torch. The judges are in core/runs/judging.

Imports: as core.training.
"""
