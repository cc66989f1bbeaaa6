"""Converts the original files of datasets to the registered ones; originals are never changed."""
