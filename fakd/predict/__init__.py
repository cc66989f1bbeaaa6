"""From a picture to a label map::

from fakd.predict import Predictor

predictor = Predictor("output/fakd")  # a run, or an exported file
labels = predictor("street.jpg")  # (H, W), the class of every pixel
print({predictor.classes[i] for i in labels.flat})
"""

from .predictor import Predictor, read_picture

__all__ = ["Predictor", "read_picture"]
