"""The process that reads the libraries beforehand and becomes a run's worker (core/queue/standby keeps it). Imports: as core.training."""
