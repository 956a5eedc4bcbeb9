"""The queue of waiting runs, and the supervisor that starts and watches them, one at a time.

Imports: runs, system, workspace and the ground.
Add what training should make room for: `game_mode`. What happens between two runs: `turns`.
"""
