"""detectron2's DefaultTrainer with what reproducible training of segmentors and distillers adds."""

import logging
import math
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, create_ddp_model, default_writers, hooks
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage, EventWriter, TensorboardXWriter
from torch import Tensor, nn
from tqdm import tqdm

from fakd.checkpoint import Checkpointer
from fakd.data import build_test_loader, build_train_loader
from fakd.evaluation import PredictionImages, PredictionWriter, SegEvaluator, as_tested
from fakd.modeling import Distiller
from fakd.modeling.build import share_batch_norm
from fakd.modeling.depthwise import keep_depthwise_in_float32
from fakd.modeling.teacher import FrozenTeacher

from .averaging import AveragedWeights
from .check import check_test_sets
from .compiling import CompileTime, compile_network
from .hooks import (
    BestCheckpointer,
    Budget,
    EvalHook,
    PeakMemory,
    RunClock,
    SaveState,
    StepSeed,
    StopOnSignal,
    share_buffers,
    unwrapped,
)
from .logging_hooks import CovarianceScalars, ModelScalars, ProgressBar, Writers
from .logs import FILE_ONLY
from .metrics import Metrics
from .optimizer import build_lr_scheduler, build_optimizer
from .quantization import SwitchToInt8, prepare_for_int8
from .signals import signals_deferred
from .step import StepTrainer, amp_dtype
from .teacher_check import check_teacher
from .teacher_form import quicken
from .writers import build_writers

logger = logging.getLogger(__name__)

_WRITE_PERIOD = 20


class Trainer(DefaultTrainer):
    """Trains any registered meta architecture so that a killed and resumed run equals an uninterrupted one.

    Attributes:
        last_metrics: of the last evaluation.
        last_confusion: its (K, K) counts by test set, row = label, column = prediction.
        memory: its peak, after the training.
        clock: wall-clock and time per iteration over all restarts.
        budget: how much of the iterations or seconds is spent.
        best: the best evaluation so far; None where nothing is evaluated or on other ranks than the first.
    """

    build_train_loader = staticmethod(build_train_loader)
    build_test_loader = staticmethod(build_test_loader)
    build_optimizer = staticmethod(build_optimizer)
    build_lr_scheduler = staticmethod(build_lr_scheduler)

    def __init__(
        self,
        cfg: CfgNode,
        bar: tqdm | None = None,
        extra_hooks: Sequence[HookBase] = (),
        max_seconds: float = math.inf,
        model: nn.Module | None = None,
    ) -> None:
        """
        Args:
            cfg: see :func:`fakd.config.load_config`.
            bar: progress bar to move along.
            extra_hooks: called after evaluation and saving, on the first rank.
            max_seconds: end, as if SOLVER.MAX_ITER were reached, once training took so long.
            model: in place of the one that the config describes.

        Raises:
            ValueError: two options contradict, or a batch cannot be split as SOLVER.ACCUMULATE asks.
        """
        super(DefaultTrainer, self).__init__()  # DefaultTrainer's own would build other parts than below
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg) if model is None else model
        if cfg.MODEL.SYNC_BN and comm.get_world_size() > 1 and cfg.MODEL.DEVICE != "cpu":
            share_batch_norm(model)
        prepare_for_int8(model, cfg)
        if amp_dtype(cfg) is not None and cfg.MODEL.DEVICE == "cpu":
            keep_depthwise_in_float32(model)
        elif amp_dtype(cfg) is None and cfg.SOLVER.AMP.ENABLED:
            logger.warning(
                "SOLVER.AMP.ENABLED changes nothing: this processor has no instructions for bfloat16, which "
                "would take several times as long as float32."
            )
        student = getattr(model, "student", model)
        _check_batch(cfg, student)
        if cfg.SOLVER.COMPILE:
            compile_network(student)
        state = getattr(model, "distillation_state", None)
        on_cpu = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        wrapped = create_ddp_model(model, broadcast_buffers=False, **on_cpu)
        self.checkpointer = Checkpointer(
            wrapped,
            cfg.OUTPUT_DIR,
            keep=cfg.SOLVER.CHECKPOINT_KEEP,
            allow_pickle=cfg.CHECKPOINT.ALLOW_PICKLE,
            trainer=weakref.proxy(self),
            **({} if state is None else {"distillation": state}),
        )
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.last_metrics = Metrics()
        self.last_confusion: dict[str, Tensor] = {}
        self.register_hooks(self.build_hooks(bar, extra_hooks, max_seconds))
        optimizer = self.build_optimizer(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self._trainer = StepTrainer(
            wrapped,
            None,  # the loader waits for begin(), where the first iteration is known
            optimizer,
            accumulate=cfg.SOLVER.ACCUMULATE,
            amp_dtype=amp_dtype(cfg),
            gather_metric_period=_WRITE_PERIOD if comm.get_world_size() > 1 else 1,
            dump_dir=cfg.OUTPUT_DIR,
        )

    def build_hooks(
        self, bar: tqdm | None = None, extra_hooks: Sequence[HookBase] = (), max_seconds: float = math.inf
    ) -> list[HookBase]:
        """All hooks, in an order that matters: evaluate, note the best, log, save, stop.

        Args:
            bar, extra_hooks, max_seconds: see the class.
        """
        cfg, is_main = self.cfg, comm.is_main_process()
        test_sets = cfg.DATASETS.TEST
        classes = cfg.DATASETS.CLASSES or [str(i) for i in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)]
        self.clock = RunClock()
        self.budget = Budget(self.clock, max_seconds)
        self.memory = PeakMemory(cfg.MODEL.DEVICE)
        self.best = None
        if is_main and test_sets:
            # The first set decides; detectron2 leaves its name out when there is only one.
            metric = "sem_seg/mIoU" if len(test_sets) == 1 else f"{test_sets[0]}/sem_seg/mIoU"
            self.best = BestCheckpointer(cfg.TEST.EVAL_PERIOD, self.checkpointer, metric)
        writers = Writers(
            lambda: self.build_writers(bar is None), f"{cfg.OUTPUT_DIR}/metrics.json", _WRITE_PERIOD
        )
        save = SaveState(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, writers.write)
        switches, averages = [], []
        if cfg.DEPLOY.QAT.ENABLED:
            switches = [SwitchToInt8(cfg.DEPLOY.QAT.SHARE, lambda: self.budget.spent, self.best)]
        if cfg.SOLVER.EMA_DECAY:
            averages = [AveragedWeights(self.checkpointer.model, cfg.SOLVER.EMA_DECAY)]
            self.checkpointer.as_tested = averages[0].in_place
        on_all = [
            StepSeed(cfg.SEED),
            *([CompileTime()] if cfg.SOLVER.COMPILE or "compile" in cfg.KD.TEACHER.FAST else []),
            hooks.IterationTimer(),
            self.clock,
            self.budget,
            *switches,
            hooks.LRScheduler(),
            *averages,
            EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate),
            self.memory,
        ]
        on_main = [
            *([] if self.best is None else [self.best]),
            ModelScalars(_WRITE_PERIOD),
            CovarianceScalars(_WRITE_PERIOD, classes),
            *([] if bar is None else [ProgressBar(bar)]),
            writers,
            save,
            *extra_hooks,
        ]
        return [*on_all, *(on_main if is_main else []), StopOnSignal(save.save)]

    def _evaluate(self) -> dict[str, Any]:
        counters = {name: SegEvaluator(name) for name in self.cfg.DATASETS.TEST}
        evaluators = [
            DatasetEvaluators([counter, PredictionImages(name), *self._prediction_writers(self.cfg, name)])
            for name, counter in counters.items()
        ]
        # What is compiled is so for training and one size of images.
        with self.checkpointer.as_tested(), torch.compiler.set_stance("force_eager"):
            share_buffers(unwrapped(self.model))
            results = self._last_eval_results = self.test(self.cfg, self.model, evaluators)
        self.last_metrics = Metrics.of_evaluators(self.cfg.DATASETS.TEST, results)
        self.last_confusion = {name: counter.confusion for name, counter in counters.items()}
        return results

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

    def build_writers(self, console: bool = True) -> list[EventWriter]:
        """detectron2's, and those of WRITERS; TensorBoard learns which steps a resume writes anew.

        Args:
            console: also write there, where no bar is shown.
        """
        printer, json_file, _ = default_writers(self.cfg.OUTPUT_DIR, self.max_iter)
        tensorboard = TensorboardXWriter(self.cfg.OUTPUT_DIR, purge_step=self.start_iter)
        more = build_writers(self.cfg, self.start_iter)
        return [*([printer] if console else []), json_file, tensorboard, *more]

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


def build_trainer(
    cfg: CfgNode,
    resume: bool,
    bar: tqdm | None = None,
    extra_hooks: Sequence[HookBase] = (),
    max_seconds: float = math.inf,
    model: nn.Module | None = None,
) -> Trainer:
    """The trainer of a run, at the iteration from which it trains; see :func:`fakd.engine.run`."""
    logger.info(f"Environment:\n{collect_env_info()}\nConfig:\n{cfg.dump()}", extra=FILE_ONLY)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    check_test_sets(cfg)
    trainer = Trainer(cfg, bar, extra_hooks, max_seconds, model)
    trainer.resume_or_load(resume)
    if resume and trainer.start_iter == 0:
        logger.warning(
            f"The run in '{cfg.OUTPUT_DIR}' had not saved a checkpoint yet: it starts from the beginning."
        )
    model = unwrapped(trainer.model)
    if isinstance(model, Distiller):
        if trainer.start_iter == 0 and isinstance(model.teacher, FrozenTeacher):
            check_teacher(model.teacher.network, cfg)
        quicken(model, trainer.cfg, resumed=trainer.start_iter > 0)
    return trainer


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
