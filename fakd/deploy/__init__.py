"""A trained student outside of training: exported files, and how fast it runs."""
