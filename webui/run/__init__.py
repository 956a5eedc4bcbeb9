"""One run as people see it: column, card, chart, film, findings, the queue that it waits in, and the way out with its exports.

Imports: form (its handle: what is found in a run fills the form), kit, state, core. Add a number that a run writes: its column in
state/curves, its curve in `chart`. Add what is told of a run: `card`, and its sentence in train_page.yaml.
"""
