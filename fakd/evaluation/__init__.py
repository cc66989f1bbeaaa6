"""The one evaluator: every number of a report comes from one confusion matrix."""

from fakd.evaluation.evaluator import SegEvaluator

__all__ = ["SegEvaluator"]
