"""Schedules of a factor such as FAKD's lambda over the training, on fvcore's schedulers."""

from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)

SCHEDULES = ("cosine", "linear", "constant")


def ramp(name: str, end: float) -> ParamScheduler:
    """A schedule over the progress in [0, 1) that ends at ``end``.

    * ``cosine``: end (1 - cos(pi t)) / 2, what FAKD calls the cosine update;
    * ``linear``: end t, as ISDA's code;
    * ``constant``: end.

    Raises:
        ValueError: ``name`` is none of them.
    """
    if name == "cosine":
        return CosineParamScheduler(0.0, end)
    if name == "linear":
        return LinearParamScheduler(0.0, end)
    if name == "constant":
        return ConstantParamScheduler(end)
    raise ValueError(f"unknown schedule '{name}'; known: {', '.join(SCHEDULES)}")
