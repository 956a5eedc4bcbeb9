"""One run as people see it: column, card, chart, film, findings, and the queue that it waits in.

Imports: kit, state, core.
"""
