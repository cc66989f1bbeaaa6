"""detectron2's DefaultTrainer with what reproducible training of segmentors and distillers adds."""

import logging
import math
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, HookBase, create_ddp_model, default_writers, hooks
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, TensorboardXWriter
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn
from tqdm import tqdm

from fakd.checkpoint import Checkpointer
from fakd.data import build_test_loader, build_train_loader
from fakd.evaluation import PredictionImages, PredictionWriter, SegEvaluator, as_tested
from fakd.modeling.build import share_batch_norm

from .check import check_config
from .hooks import BestCheckpointer, Budget, EvalHook, RunClock, SaveState, StepSeed, StopOnSignal, unwrapped
from .logging_hooks import CovarianceScalars, ModelScalars, ProgressBar, Writers
from .optimizer import build_optimizer
from .signals import signals_deferred
from .step import StepTrainer

logger = logging.getLogger(__name__)

_WRITE_PERIOD = 20


class PolyScheduler(ParamScheduler):
    """``floor + (1 - floor) * (1 - where) ** power``: the usual decay of segmentation, with a floor."""

    def __init__(self, power: float, floor: float) -> None:
        self._power, self._floor = power, floor

    def __call__(self, where: float) -> float:
        return self._floor + (1 - self._floor) * (1 - where) ** self._power


class Trainer(DefaultTrainer):
    """Trains any registered meta architecture so that a killed and resumed run ends like an undisturbed one.

    Attributes:
        last_results: what the last evaluation gave, empty on other ranks than the first.
        last_confusion: its (K, K) counts by test set, row = label, column = prediction.
        clock: wall-clock and time per iteration over all restarts.
        budget: how much of the iterations or seconds is spent.
        best: the best evaluation so far; None where nothing is evaluated or on other ranks than the first.
    """

    def __init__(
        self,
        cfg: CfgNode,
        bar: tqdm | None = None,
        extra_hooks: Sequence[HookBase] = (),
        max_seconds: float = math.inf,
    ) -> None:
        """
        Args:
            cfg: see :func:`fakd.config.load_config`.
            bar: progress bar to move along.
            extra_hooks: called after evaluation and saving, on the first rank.
            max_seconds: end, as if SOLVER.MAX_ITER were reached, once training took so long.

        Raises:
            ValueError: two options contradict, or a batch cannot be split as SOLVER.ACCUMULATE asks.
        """
        super(DefaultTrainer, self).__init__()  # DefaultTrainer's own would build other parts than below
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        check_config(cfg)
        model = self.build_model(cfg)
        if cfg.MODEL.SYNC_BN and comm.get_world_size() > 1 and cfg.MODEL.DEVICE != "cpu":
            share_batch_norm(model)
        _check_batch(cfg, getattr(model, "student", model))
        optimizer = self.build_optimizer(cfg, model)
        state = getattr(model, "distillation_state", None)
        on_cpu = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        model = create_ddp_model(model, broadcast_buffers=False, **on_cpu)
        self._trainer = StepTrainer(
            model,
            None,  # the loader waits for train(), where the first iteration is known
            optimizer,
            accumulate=cfg.SOLVER.ACCUMULATE,
            amp_dtype=_amp_dtype(cfg),
            gather_metric_period=_WRITE_PERIOD if comm.get_world_size() > 1 else 1,
            dump_dir=cfg.OUTPUT_DIR,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            keep=cfg.SOLVER.CHECKPOINT_KEEP,
            allow_pickle=cfg.CHECKPOINT.ALLOW_PICKLE,
            trainer=weakref.proxy(self),
            **({} if state is None else {"distillation": state}),
        )
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.last_results: dict[str, Any] = {}
        self.last_confusion: dict[str, Tensor] = {}
        self._bar = bar
        self._extra_hooks, self._max_seconds = extra_hooks, max_seconds
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[Any]:
        """All hooks, in an order that matters: evaluate, note the best, log, save, stop."""
        cfg = self.cfg
        self.clock = RunClock()
        self.budget = Budget(self.clock, self._max_seconds)
        self.best = None
        result = [
            StepSeed(cfg.SEED),
            hooks.IterationTimer(),
            self.clock,
            self.budget,
            hooks.LRScheduler(),
            EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate),
        ]
        writers = Writers(self.build_writers, f"{cfg.OUTPUT_DIR}/metrics.json", _WRITE_PERIOD)
        save = SaveState(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, writers.write)
        if comm.is_main_process():
            if cfg.DATASETS.TEST:
                metric = best_metric_name(cfg.DATASETS.TEST)
                self.best = BestCheckpointer(cfg.TEST.EVAL_PERIOD, self.checkpointer, metric)
                result.append(self.best)
            result += [*self._logging_hooks(), writers, save, *self._extra_hooks]
        return [*result, StopOnSignal(save.save)]

    def _logging_hooks(self) -> list[Any]:
        bar = [ProgressBar(self._bar)] if self._bar is not None else []
        known = MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0]).get("stuff_classes")
        classes = known or [str(i) for i in range(self.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)]
        return [ModelScalars(_WRITE_PERIOD), CovarianceScalars(_WRITE_PERIOD, classes), *bar]

    def _evaluate(self) -> dict[str, Any]:
        _share_buffers(unwrapped(self.model))
        counters = {name: SegEvaluator(name) for name in self.cfg.DATASETS.TEST}
        evaluators = [
            DatasetEvaluators([counter, PredictionImages(name), *self._prediction_writers(self.cfg, name)])
            for name, counter in counters.items()
        ]
        self.last_results = self.test(self.cfg, self.model, evaluators)
        self.last_confusion = {name: counter.confusion for name, counter in counters.items()}
        return self.last_results

    def train(self) -> None:
        """Trains from ``start_iter`` on, which ``resume_or_load`` sets, and evaluates.

        Raises:
            SystemExit: a signal came; everything is saved.
        """
        self.begin()
        try:
            with signals_deferred():
                while not self.finished:
                    self.step()
        except Exception:
            logger.exception("The training failed:")
            raise
        finally:
            self.end()

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.iter >= self.max_iter

    def begin(self, batches: Iterable[Any] | None = None) -> None:
        """Gets ready for the first step.

        Args:
            batches: what to train on, in place of a loader of one's own.
        """
        logger.info(f"Training begins at iteration {self.start_iter}.")
        self.iter = self.start_iter
        self.storage = EventStorage(self.start_iter)
        position = self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH
        self._trainer.reset_data_loader(
            lambda: self.build_train_loader(self.cfg, position) if batches is None else batches
        )
        with self.storage:
            self.before_train()

    def step(self) -> None:
        """One iteration, with what hooks do before and after it."""
        with self.storage:
            self.before_step()
            self.run_step()
            self.after_step()
        self.iter += 1

    def end(self) -> None:
        """Closes what :meth:`begin` opened; after the last step also evaluates."""
        self._trainer.reset_data_loader(lambda: None)  # ends the worker processes before the last evaluation
        with self.storage:
            self.after_train()

    def build_writers(self) -> list[EventWriter]:
        """detectron2's. TensorBoard learns which steps a resume writes anew; a bar replaces the console."""
        console, json_file, _ = default_writers(self.cfg.OUTPUT_DIR, self.max_iter)
        tensorboard = TensorboardXWriter(self.cfg.OUTPUT_DIR, purge_step=self.start_iter)
        return [json_file, tensorboard] if self._bar is not None else [console, json_file, tensorboard]

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_position: int = 0) -> Any:
        return build_train_loader(cfg, start_position=start_position)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return DatasetEvaluators([SegEvaluator(dataset_name), *cls._prediction_writers(cfg, dataset_name)])

    @staticmethod
    def _prediction_writers(cfg: CfgNode, dataset_name: str) -> list[DatasetEvaluator]:
        if not cfg.TEST.SAVE:
            return []
        folder = f"{cfg.OUTPUT_DIR}/inference/{dataset_name}"
        return [PredictionWriter(dataset_name, folder, cfg.TEST.SAVE)]

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> Any:
        """Evaluates on DATASETS.TEST, whole or in windows, at scales and mirrored, as TEST says."""
        return super().test(cfg, as_tested(model, cfg), evaluators)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """MIN_LR + (BASE_LR - MIN_LR) (1 - t / MAX_ITER)^POLY_POWER; detectron2's if POLY_POWER is 0."""
        solver = cfg.SOLVER
        if solver.POLY_POWER == 0:
            return super().build_lr_scheduler(cfg, optimizer)
        if solver.LR_SCHEDULER_NAME != "WarmupMultiStepLR":  # detectron2's default
            raise ValueError(
                f"SOLVER.LR_SCHEDULER_NAME {solver.LR_SCHEDULER_NAME} and SOLVER.POLY_POWER "
                f"{solver.POLY_POWER} are two schedules. Set SOLVER.POLY_POWER 0.0 to use the former."
            )
        schedule: ParamScheduler = PolyScheduler(solver.POLY_POWER, solver.MIN_LR / solver.BASE_LR)
        if solver.WARMUP_ITERS > 0:
            schedule = WarmupParamScheduler(
                schedule,
                solver.WARMUP_FACTOR,
                min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
                solver.WARMUP_METHOD,
                solver.RESCALE_INTERVAL,
            )
        return LRMultiplier(optimizer, schedule, solver.MAX_ITER)


def best_metric_name(test_sets: Sequence[str]) -> str:
    """The logged name of the mIoU by which the best model is chosen: that of the first test set."""
    return "sem_seg/mIoU" if len(test_sets) == 1 else f"{test_sets[0]}/sem_seg/mIoU"


def _share_buffers(network: nn.Module) -> None:
    """Gives all ranks the main process's buffers, which are the ones saved.

    Each rank's batch norm has statistics of its own part of the batches, unless SYNC_BN shares them.
    """
    if comm.get_world_size() > 1:
        weights = {name for name, _ in network.named_parameters()}
        for name, buffer in network.state_dict().items():
            if name not in weights:
                torch.distributed.broadcast(buffer, src=0)


def _amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.MODEL.DEVICE == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def _check_batch(cfg: CfgNode, network: nn.Module) -> None:
    """A batch norm of one process needs two values per channel; of a map's mean every image gives one.

    Raises:
        ValueError: one image is computed at a time, and the network norms such means.
    """
    processes, parts = comm.get_world_size(), cfg.SOLVER.ACCUMULATE
    if cfg.SOLVER.IMS_PER_BATCH > processes * parts:
        return
    for name, branch in network.named_modules():
        first = branch[0] if isinstance(branch, nn.Sequential) and len(branch) else None
        averages = isinstance(first, nn.AdaptiveAvgPool2d) and first.output_size in (1, (1, 1))
        # Not SyncBatchNorm, which counts the images of all processes.
        if averages and any(isinstance(module, nn.BatchNorm2d) for module in branch.modules()):
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}, {processes} processes and "
                f"SOLVER.ACCUMULATE {parts} leave one image at a time, too few for the batch norm of "
                f"'{name}', which sees one value per image. Set SOLVER.IMS_PER_BATCH to "
                f"{2 * processes * parts} or more or SOLVER.ACCUMULATE lower, or choose a "
                "MODEL.SEM_SEG_HEAD.NAME without such a branch; several GPUs share their batch norms under "
                "MODEL.SYNC_BN True."
            )
