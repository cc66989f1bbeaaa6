"""Every loss of this package: formula, options, what it uses and what it costs.

    python -m fakd.losses               print all
    python -m fakd.losses CWD DIST      print these
    python -m fakd.losses --markdown    write docs/losses.md

What a loss uses and costs is measured by running it on the meta device.
"""

from __future__ import annotations

import argparse
import inspect
import os
import textwrap
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from ..registry import DISTILL_LOSS_REGISTRY, lookup
from ..structures import SegSpec
from ._usage import IMAGES, SIDE, record
from .base import DistillLoss, config_key

PAGE = Path("docs", "losses.md")
WIDTH = 120  # of its lines
STAGES = ("res2", "res3", "res4", "res5")
STUDENT = SegSpec(19, 128, dict(zip(STAGES, (64, 128, 256, 512), strict=True)))
TEACHER = SegSpec(19, 512, dict(zip(STAGES, (256, 512, 1024, 2048), strict=True)))
SETTING = (
    f"{IMAGES} images of {STUDENT.num_classes} classes on a {SIDE} x {SIDE} grid, {STUDENT.feature_channels} "
    f"channels in the student and {TEACHER.feature_channels} in the teacher"
)

HEAD = f"""# Losses

Written by `python -m fakd.losses --markdown` from the code. A loss is chosen by its name in `KD.LOSSES`; its
options are keys of the node `KD.<Name>`. Shapes: N images, K classes, A channels in front of the classifier,
M pixels of the grid the classifier runs on. Inputs and costs are those of the default options.

The formulas and equation numbers of FAKD are those of the preprint (arXiv 2208.14143). It was published at
WACV 2024, pages 584-594 (DOI 10.1109/WACV57701.2024.00065), with a rewritten abstract: "surrogate loss
functions", "upper bound of the expected distillation loss over infinite augmented samples". The published
text was not available here: its equation numbers, the constants of the offsets (2 tau in the preprint) and
the weights may differ.

Costs are for {SETTING}.
FLOP count matrix products and convolutions, forward and backward, two per multiply-add; element-wise
operations are not counted.
"""


def library_losses() -> dict[str, type[DistillLoss]]:
    """Those of this package, without what a plugin has registered."""
    own = [loss for _, loss in DISTILL_LOSS_REGISTRY if loss.__module__.startswith(f"{__package__}.")]
    return {loss.__name__: loss for loss in sorted(own, key=lambda loss: loss.__name__)}


def loss_section(loss: type[DistillLoss]) -> str:
    """Markdown of one loss."""
    rows = [f"| `{config_key(f.name)}` | `{f.default}` | {f.metadata['help']} |" for f in fields(loss.Config)]
    uses, cost = measure(loss)
    return "\n".join(
        [
            f"## {loss.__name__}",
            "",
            f"*{loss.paper}*",
            "",
            inspect.getdoc(loss) or "",
            "",
            "| option | default | |",
            "|---|---|---|",
            *rows,
            "",
            textwrap.fill(f"Uses {uses}. Costs {cost}.", WIDTH, break_on_hyphens=False),
            "",
        ]
    )


def markdown(losses: Iterable[type[DistillLoss]]) -> str:
    """The page docs/losses.md."""
    return "\n".join([HEAD, *map(loss_section, losses)])


def measure(loss_class: type[DistillLoss]) -> tuple[str, str]:
    """What a loss with default options uses of its inputs, and its cost, in words."""
    loss = loss_class(loss_class.Config(), STUDENT, TEACHER).to("meta")
    recorder = record(loss, STUDENT, TEACHER)
    trained = sum(p.numel() for p in loss.parameters() if p.requires_grad)
    kept = [*loss.buffers(), *(p for p in loss.parameters() if not p.requires_grad)]
    state = sum(x.numel() * x.element_size() for x in kept)
    cost = [f"{recorder.flop / 1e9:.3g} GFLOP"]
    cost += [f"{trained / 1e6:.3g} M trained weights"] if trained else []
    cost += [f"{state / 1e6:.3g} MB of state"] if state else []
    return _list(sorted(recorder.used)), _list(cost)


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def main(arguments: list[str] | None = None) -> None:
    """Print losses, or write the page of all of them; ``arguments`` are those of the command line."""
    parser = argparse.ArgumentParser(prog="python -m fakd.losses", description="The losses of this package.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="losses to print (default: all)")
    parser.add_argument("--markdown", action="store_true", help=f"write {PAGE} of all losses instead")
    options = parser.parse_args(arguments)
    if options.markdown:
        temporary = PAGE.with_suffix(".tmp")
        temporary.write_text(markdown(library_losses().values()), encoding="utf-8")
        os.replace(temporary, PAGE)
        return
    names = options.names or library_losses()
    print(markdown(lookup(DISTILL_LOSS_REGISTRY, name, "python -m fakd.losses") for name in names))


if __name__ == "__main__":
    main()
