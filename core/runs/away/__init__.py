"""A zip with which a borrowed PC trains a recipe without a page: the recipe, the data set, this app and bootstrap.sh.
Imports what core/runs may, and core/data."""
