"""Datasets, augmentations, mapper and loaders; importing it registers the datasets."""

from . import datasets
from .augmentations import RandomScale, build_augmentations
from .labels import read_label
from .loader import build_test_loader, build_train_loader
from .mapper import SemSegMapper

__all__ = [
    "RandomScale",
    "SemSegMapper",
    "build_augmentations",
    "build_test_loader",
    "build_train_loader",
    "datasets",
    "read_label",
]
