"""Runs tests.kit.bad_judges.leave."""

from tests.kit.bad_judges import leave

if __name__ == "__main__":
    leave()
