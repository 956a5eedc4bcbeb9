"""How a dataset is read: choices of a person, and those of a recipe, in the data step. Imports as webui/form does."""
