"""The record of one run, the table of many, and the numbers others report: files only, no torch."""
