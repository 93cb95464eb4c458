"""Tables, figures, heatmaps and the report page from the files of runs; no torch."""
