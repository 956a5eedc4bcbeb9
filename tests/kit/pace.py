"""Stands where core.trial.pace_probe would, for the apps of tests: a pace at once. The real one: tests/model/test_pace.py."""

from __future__ import annotations

import json

if __name__ == "__main__":
    print(json.dumps({"device": "cpu", "dtype": "float32", "tokens_per_second": 500.0}))
