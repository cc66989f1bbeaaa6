"""The one evaluator: every number of a report comes from one confusion matrix; and how networks are
tested."""

from fakd.evaluation.evaluator import SegEvaluator
from fakd.evaluation.predictions import PredictionImages, PredictionWriter
from fakd.evaluation.test_time import TestTimeModel, as_tested

__all__ = ["PredictionImages", "PredictionWriter", "SegEvaluator", "TestTimeModel", "as_tested"]
