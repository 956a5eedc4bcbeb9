"""The reading of a dataset in the data step: choices of a person, and those of a recipe. Imports as webui/form does."""
