"""Problems in the rows of a dataset: pure checks over (row number, example), in one pass, with almost constant memory.

`checks.Checks` takes row by row and returns its findings at the end; a `finding.Finding` has a count, some rows as
examples with a quote (secrets masked), and repairs as data, which `repairs.repaired` applies to a row. One file a kind:
secrets, placeholders, answers, language, writing, lengths, near. Imports: core/data/conversation. To add a kind: a
class with `add` and `findings`, its name in `finding.Kind`, its sentences in core/locales/en/finding.yaml and its
Chinese twin, and in tests/unit/data/test_findings.py a dataset that has it and one that nearly has it.
"""
