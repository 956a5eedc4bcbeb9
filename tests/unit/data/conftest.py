"""hypothesis judges no test here by how long an example took, or took to be made: beside seven other programs, or under
Wine, that is no fault."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
