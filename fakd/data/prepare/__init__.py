"""From what a dataset's site ships to what is registered; originals are never touched."""
