"""In step 3, how the chosen set is read: what a person says of it, and what a recipe brings. Imports as webui/form does."""
