"""Sweeps: many runs from one file, on one machine or a Ray cluster. Only ``runner`` imports ray."""
