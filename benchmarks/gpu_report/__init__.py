"""The first half hour on a card: checks that only a real one can answer, in one command, with one table to paste into
an issue.

    python launch.py test --help                 (once: makes the environment, with what the tests need)
    .venv/bin/python -m benchmarks.gpu_report [--quick] [--model ID] [--folder gpu-report]

The `parts.PARTS` are run in their order, 30 minutes in all, or five with --quick. A part is a list of checks with a
time. It runs in a process of its own, which stores the result of each check in results.jsonl as it ends (child). A
check that fails ends its process, because CUDA may be unusable there; the next one begins in a new one (running). So an
error, a crash or a check that hangs affects nothing else. A second call continues after an interruption, and repeats
failed checks; delete the folder to begin anew. Another card or version begins anew too.

The table names no person and no path; report.md has it too, with all lines of a check that gave several, and the list
of what cannot be tested here (a lid that is closed, a folder that Defender holds), from docs/gaming-pc.md. Exit status:
0 all is well, 1 a check failed, 2 there is no card.
"""
