"""What a preference run needs besides its steps: the reference log-probabilities. Imports torch: workers only."""
