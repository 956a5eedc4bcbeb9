"""The reference log-probabilities of a preference run. Imports torch: workers only."""
