"""Training in int8's rounding (DEPLOY.QAT): from a config to a prepared network, and when it begins."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from fakd.modeling import Distiller, Segmentor
from fakd.modeling.quantized import ActivationRange, begin, convolutions, prepare

from .hooks import BestCheckpointer, share_buffers, unwrapped

logger = logging.getLogger(__name__)


def prepare_for_int8(model: nn.Module, cfg: CfgNode) -> None:
    """Readies the network that is trained, if DEPLOY.QAT asks for it.

    Args:
        model: a segmentor, or a distiller of one.
        cfg: of the run.

    Raises:
        ValueError: the network cannot be computed in int8; the message names the layer.
    """
    if not cfg.DEPLOY.QAT.ENABLED:
        return
    network = model.student if isinstance(model, Distiller) else model
    if not isinstance(network, Segmentor):
        kind = cfg.MODEL.META_ARCHITECTURE
        raise ValueError(f"DEPLOY.QAT: MODEL.META_ARCHITECTURE {kind} is no network of this project.")
    prepare(network, tuple(cfg.INPUT.CROP.SIZE), cfg.DEPLOY.QAT.FLOAT_LAYERS, cfg.DEPLOY.QAT.WEIGHT_BITS)


class SwitchToInt8(HookBase):
    """Lets a prepared network round as int8 does, once only DEPLOY.QAT.SHARE of the training is left.

    What was best before is no int8 network, so that the best is looked for anew.

    Args:
        share: of the training, in (0, 1].
        spent: what gives the share that is done.
        best: keeps the best weights, or None.
    """

    def __init__(self, share: float, spent: Callable[[], float], best: BestCheckpointer | None) -> None:
        self._start, self._spent, self._best = 1 - share, spent, best
        self._begun = self._resumed = False

    def before_train(self) -> None:  # a run resumed behind its last step is evaluated alone
        self.before_step()

    def before_step(self) -> None:
        if self._begun or self._spent() < self._start:
            return
        self._begun = True
        network = unwrapped(self.trainer.model)
        share_buffers(network)  # the statistics of batch norms, which now stay as they are
        begin(network)
        if not self._resumed:
            if self._best is not None:
                self._best.forget()
            count = len(convolutions(network))
            logger.info(f"From iteration {self.trainer.iter} on {count} convolutions compute as in int8.")

    def after_step(self) -> None:
        if self._begun and comm.get_world_size() > 1:
            _share_ranges(unwrapped(self.trainer.model))

    def state_dict(self) -> dict[str, Any]:
        return {"begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._resumed = state["begun"]


def _share_ranges(network: nn.Module) -> None:
    """Gives all ranks the main process's, which are saved: each has observed its part of the batch."""
    ranges = [m for m in network.modules() if isinstance(m, ActivationRange)]
    values = [value for m in ranges for value in (m.low, m.high, m.scale, m.zero_point)]  # (1,) each
    together = torch.cat([value.float() for value in values])
    torch.distributed.broadcast(together, src=0)
    for value, shared in zip(values, together, strict=True):
        value.copy_(shared)
