"""The data step's choices of how a dataset is read: a person's, and those of a recipe. Imports as webui/form does."""
