"""Step 3, from the hub: `panel` finds a data set, shows it and brings a part of it; `view` draws it.
Imports: shelf, and what webui/form may."""
