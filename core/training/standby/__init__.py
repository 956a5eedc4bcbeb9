"""The standby process, which imports the libraries and becomes a run's worker (core/queue/standby manages it). Imports:
as core.training."""
