"""Step 3, *From the hub*: `panel` finds a dataset, previews it and downloads a part; `view` renders it.
Imports: shelf, and what webui/form may."""
