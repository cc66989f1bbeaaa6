"""Evaluation of semantic segmentation from one confusion matrix that stays on the device."""

import logging
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from fakd.data.labels import label_reader
from fakd.functional.confusion import confusion_matrix, metrics_from_confusion

logger = logging.getLogger(__name__)


class SegEvaluator(DatasetEvaluator):
    """mIoU, mAcc, aAcc and per-class IoU and accuracy of a registered dataset, in percent.

    Use it with detectron2's ``inference_on_dataset``. Arg-max and counting run where the prediction
    lies; only the (K, K) matrix is ever reduced over ranks, once, in :meth:`evaluate`. The numbers equal
    those of detectron2's ``SemSegEvaluator`` (there named mIoU, mACC, pACC), without its dump of every
    prediction. Absent classes: see :func:`fakd.functional.confusion.metrics_from_confusion`.

    Attributes:
        confusion: (K, K) int64 counts, row = label, column = prediction. This rank's images while
            processing, those of all ranks after :meth:`evaluate`.
    """

    def __init__(self, dataset_name: str, read_label: Callable[[str], np.ndarray] | None = None) -> None:
        """
        Args:
            dataset_name: registered dataset; its metadata gives ``stuff_classes`` and ``ignore_label``.
            read_label: path -> (H, W) integer array of class ids and ``ignore_label``; default
                :func:`fakd.data.labels.label_reader`'s.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._name = dataset_name
        self._classes: list[str] = list(metadata.stuff_classes)
        self._ignore_label: int = metadata.ignore_label
        self._read_label = read_label or label_reader(metadata)
        records = DatasetCatalog.get(dataset_name)
        if missing := [d["file_name"] for d in records if "sem_seg_file_name" not in d]:
            raise ValueError(
                f"'{dataset_name}' cannot be evaluated on: {len(missing)} of its {len(records)} pictures "
                f"have no label, such as '{missing[0]}'. DATASETS.TEST needs labelled sets; "
                "DATASETS.UNLABELLED takes others."
            )
        self._label_files = {d["file_name"]: d["sem_seg_file_name"] for d in records}
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.confusion = torch.zeros(len(self._classes), len(self._classes), dtype=torch.int64)

    def process(self, inputs: list[dict], outputs: list[dict[str, Tensor]]) -> None:
        """Count the pixels of some images.

        Args:
            inputs: dataset dicts with ``file_name``.
            outputs: one dict per image with ``sem_seg``, the (K, H, W) class scores at the label's size.

        Raises:
            ValueError: when a label has another size than its prediction or an id outside the classes;
                names the label file.
        """
        for image, output in zip(inputs, outputs, strict=True):
            prediction = output["sem_seg"].max(dim=0).indices  # a fifth of argmax's time on a CPU
            label_file = self._label_files[image["file_name"]]
            label = self._read_label(label_file)
            try:
                self._check_ids(label)
                on_device = torch.from_numpy(label).to(prediction.device)
                counts = confusion_matrix(prediction, on_device, len(self._classes), self._ignore_label)
            except ValueError as error:
                raise ValueError(
                    f"cannot compare {image['file_name']} with its label {label_file}: {error}"
                ) from error
            self.confusion = self.confusion.to(counts.device) + counts

    def _check_ids(self, label: np.ndarray) -> None:
        """Checks a label on the host, where it is, so that the device need not be waited for."""
        ids = label[label != self._ignore_label]
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self._classes):
            raise ValueError(
                f"its ids range from {ids.min()} to {ids.max()}, outside the {len(self._classes)} classes "
                f"and the void id {self._ignore_label}"
            )

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Sum the matrix over ranks and compute the metrics.

        Returns:
            ``{"sem_seg": {"mIoU", "mAcc", "aAcc", "IoU-<class>", "Acc-<class>"}}`` in percent, nan for
            classes without a label pixel; empty on all ranks but the first.

        Raises:
            ValueError: when no labelled pixel was seen at all.
        """
        if comm.get_world_size() > 1:
            # A rank without images still holds its matrix on the CPU, where NCCL cannot reduce it.
            self.confusion = self.confusion.to("cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(self.confusion)
        if not comm.is_main_process():
            return OrderedDict()
        if self.confusion.sum() == 0:
            raise ValueError(
                f"no labelled pixel of {self._name} was evaluated: the loader is empty or every label is void"
            )
        metrics = {
            name: (100 * value).tolist() for name, value in metrics_from_confusion(self.confusion).items()
        }
        summary = {name: metrics[name] for name in ("mIoU", "mAcc", "aAcc")}
        logger.info("%s: %s", self._name, ", ".join(f"{name} {value:.2f}" for name, value in summary.items()))
        per_class = {
            f"{name}-{label}": value
            for name in ("IoU", "Acc")
            for label, value in zip(self._classes, metrics[name], strict=True)
        }
        return OrderedDict(sem_seg=summary | per_class)
