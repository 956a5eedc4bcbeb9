"""The queue of waiting runs, and the supervisor that starts and watches them, one at a time.

Imports: runs, system, workspace and the ground.
Add what training should release the device for: `game_mode`. Add what happens between two runs: `turns`.
"""
