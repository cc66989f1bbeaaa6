"""Trains a network, alone or with a teacher, and evaluates it."""

import argparse
import contextlib
import sys

from fakd.config import check_recipe, find_experiment, load_config
from fakd.engine import evaluate, run
from fakd.engine.cli import launch_ranks

# isort: split
# After fakd, which silences what the import of detectron2 warns of.
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from tqdm import tqdm

EXAMPLES = """
examples:
  a network alone            %(prog)s --config-file configs/toyscenes/student.yaml
  with a teacher, by CWD     %(prog)s --config-file configs/toyscenes/student.yaml --recipe cwd \\
                                 KD.TEACHER.RUN output/teacher OUTPUT_DIR output/cwd
  go on after a stop         the same command with --resume
  evaluate                   the same command with --eval-only [MODEL.WEIGHTS some.pth]
  a paper's experiment       %(prog)s --experiment FAKD/ade20k/pspnet_r18/fakd_paper

KEY VALUE pairs and flags come in any order. OUTPUT_DIR, SEED, SOLVER.MAX_ITER, SOLVER.AMP.ENABLED True and
MODEL.DEVICE cpu are the ones used most; fakd/config/defaults.py explains all. Exit codes: 0 done, 1 an error
that the message explains, 143 or 130 stopped by SIGTERM or Ctrl-C with everything saved. FAKD_TRACEBACK=1
shows where an error arose.
"""


def train(args: argparse.Namespace) -> None:
    """What one rank does."""
    if args.experiment:
        named = find_experiment(args.experiment)
        args.config_file, args.recipe, args.opts = named.config_file, named.recipe, [*named.opts, *args.opts]
    if not args.allow_plugins:
        check_recipe(args.recipe, args.config_file, args.opts)
    cfg = load_config(args.config_file, args.opts, args.recipe)
    cfg.freeze()
    watched = sys.stdout.isatty() and comm.is_main_process() and not args.eval_only
    with tqdm(total=cfg.SOLVER.MAX_ITER, unit="it") if watched else contextlib.nullcontext() as bar:
        if args.eval_only:
            evaluate(cfg)
        else:
            run(cfg, args.resume, config_file=args.config_file, bar=bar)


def parse() -> argparse.Namespace:
    """The command line, whose flags and keys come in any order."""
    parser = default_argument_parser(epilog=EXAMPLES)
    parser.description = __doc__
    recipe = (
        "distillation method, in place of KD.RECIPE: a name in fakd/config/recipes or a path; 'student': none"
    )
    parser.add_argument("--recipe", metavar="NAME", help=recipe)
    experiment = "of a paper, in place of --config-file and --recipe: PROJECT/DATASET/STUDENT/RECIPE"
    parser.add_argument("--experiment", "--cell", metavar="NAME", help=experiment)
    parser.add_argument("--allow-plugins", action="store_true", help="run the code that the recipe names")
    # detectron2's takes everything after the first KEY for keys and values; here flags may follow them.
    (opts,) = (action for action in parser._actions if action.dest == "opts")
    opts.nargs, opts.default = "*", []
    return parser.parse_intermixed_args()


def main() -> None:
    """Parses the command line and trains in as many processes as it says."""
    given = parse()
    ranks = (given.num_gpus, given.num_machines, given.machine_rank, given.dist_url)
    launch_ranks(train, ranks, given)
