"""One run on the page: column, card, chart, sample answers, findings, its queue, and exports.

Imports: form (its handle: what is found in a run fills the form), kit, state, core. Add a number that a run writes: its
column in state/curves, its curve in `chart`. Add what is told of a run: `card`, and its sentence in train_page.yaml.
"""
