"""Run records, tables of runs, statistics over them, and published results; without torch."""
