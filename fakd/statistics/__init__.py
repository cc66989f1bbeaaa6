"""Running statistics that outlive a step, kept as buffers."""

from .class_covariance import ClassCovariance

__all__ = ["ClassCovariance"]
