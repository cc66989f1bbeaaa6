"""Evaluation from one confusion matrix, saved predictions, and test-time inference."""

from fakd.evaluation.evaluator import SegEvaluator
from fakd.evaluation.predictions import PredictionImages, PredictionWriter
from fakd.evaluation.test_time import TestTimeModel, as_tested

__all__ = ["PredictionImages", "PredictionWriter", "SegEvaluator", "TestTimeModel", "as_tested"]
