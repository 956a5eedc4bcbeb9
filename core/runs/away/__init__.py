"""Runs as archives for another PC, and back. Imports what core/runs may, and core/data.

packed: a run's folder (and its data set) as a zip, and the checks under which it is opened again. job: a zip with which
a borrowed PC trains a recipe without a page: the recipe, the data set, this app and bootstrap.sh, which packs the
finished run.
"""
