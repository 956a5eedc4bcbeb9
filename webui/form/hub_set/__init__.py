"""*From the hub*, in the data step: `panel` finds a dataset, previews it and downloads a part; `view` renders it.
Imports: shelf, and what webui/form may."""
