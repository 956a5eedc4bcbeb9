"""One run on the page: column, card, chart, sample answers, findings, its queue, and exports.

Imports: form (its handle: a run's finding fills the form), kit, state, core. Add a number that a run writes: its column
in state/curves, its curve in `chart`. Add a fact about a run: `card`, and its sentence in train_page.yaml.
"""
