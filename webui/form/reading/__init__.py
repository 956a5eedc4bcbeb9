"""In the data step, how the chosen dataset is read: a person's choices, and those of a recipe. Imports as webui/form
does."""
