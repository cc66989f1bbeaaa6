"""One training step: forward, finite check, backward, update."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fakd.files import atomic_write
from fakd.functional.precision import HALVES, autocast, half_of_device


class StepTrainer(SimpleTrainer):
    """detectron2's SimpleTrainer with micro-batches, mixed precision and a check of the losses.

    With ``accumulate=n`` each batch runs as n micro-batches whose gradients are averaged. For losses that are
    means over pixels this is the gradient of the whole batch, except that BatchNorm sees a micro-batch, and
    that a mean over valid pixels weighs every micro-batch alike, however much of it is void.

    A loss that is not finite stops the run before the update, so the weights stay good. The check costs no
    pause of the device: its values travel to the host while the backward pass runs.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        amp_dtype: torch.dtype | None = None,
        gather_metric_period: int = 1,
        dump_dir: str = "",
    ) -> None:
        """
        Args:
            model: maps a list of dicts to a dict of scalar losses.
            data_loader: iterable over lists of dicts.
            optimizer: over the model's parameters.
            accumulate: micro-batches per step; must divide the length of every batch.
            amp_dtype: torch.bfloat16 or torch.float16 for mixed precision, None for float32.
            gather_metric_period: steps between two gatherings of the losses of all ranks.
            dump_dir: where to save a batch whose loss is not finite; "" to not save it.
        """
        super().__init__(model, data_loader, optimizer, gather_metric_period)
        self.accumulate = accumulate
        self.device = next(model.parameters()).device
        self.amp_dtype = amp_dtype
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=amp_dtype is torch.float16)
        self.dump_dir = dump_dir

    def run_step(self) -> None:
        """
        Raises:
            FloatingPointError: a loss is NaN or infinite.
        """
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        readout = _Readout(self.device)
        for i, micro_batch in enumerate(_split(batch, self.accumulate)):
            with self._synced_gradients(last=i == self.accumulate - 1):
                with autocast(self.device, self.amp_dtype):
                    losses = self.model(micro_batch)
                readout.push(losses)
                self.grad_scaler.scale(sum(losses.values()) / self.accumulate).backward()
        self.after_backward()

        rows = readout.wait()
        if not torch.isfinite(rows).all():
            self._stop(batch, list(losses), rows)
        self._write_metrics(dict(zip(losses, rows.mean(dim=0), strict=True)), data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _synced_gradients(self, last: bool) -> contextlib.AbstractContextManager:
        """Ranks exchange gradients once per step, with the last micro-batch."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _stop(self, batch: list[dict[str, Any]], names: list[str], rows: Tensor) -> None:
        bad = [name for name, column in zip(names, rows.T, strict=True) if not torch.isfinite(column).all()]
        values = {name: column.tolist() for name, column in zip(names, rows.T, strict=True)}
        saved = ""
        if self.dump_dir:
            rank = f"_rank{comm.get_rank()}" if comm.get_world_size() > 1 else ""
            path = Path(self.dump_dir, f"nonfinite_batch{rank}.pth")
            with atomic_write(path) as file:
                torch.save({"iteration": self.iter, "losses": values, "batch": batch}, file)
            saved = f" The batch is in '{path}'."
        raise FloatingPointError(
            f"{', '.join(bad)} became NaN or infinite at iteration {self.iter}: {values}.{saved} The weights "
            "were not updated and the last checkpoint is good. Lower SOLVER.BASE_LR or the weight of this "
            "loss, or turn SOLVER.AMP.ENABLED off, and start in another OUTPUT_DIR; MODEL.WEIGHTS may name "
            "that checkpoint."
        )

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's and the gradient scaler's state."""
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """What a config computes in beside float32; None: nothing else, as on a CPU that has no bfloat16."""
    return HALVES.get(half_of_device(torch.device(cfg.MODEL.DEVICE))) if cfg.SOLVER.AMP.ENABLED else None


class _Readout:
    """Brings loss values to the host without stopping the device."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        self._rows: list[Tensor] = []

    def push(self, losses: Mapping[str, Tensor]) -> None:
        row = torch.stack([value.detach().float() for value in losses.values()])
        self._rows.append(row.to("cpu", non_blocking=True))  # lands in pinned memory
        if self._event is not None:
            self._event.record()

    def wait(self) -> Tensor:
        """(micro-batches, losses) float32 on the host. Waits for the forward passes only."""
        if self._event is not None:
            self._event.synchronize()
        return torch.stack(self._rows)


def _split(batch: list, parts: int) -> list[list]:
    if len(batch) % parts:
        raise ValueError(f"SOLVER.ACCUMULATE {parts} does not divide a batch of {len(batch)} images.")
    size = len(batch) // parts
    return [batch[i * size : (i + 1) * size] for i in range(parts)]
