"""Trains a network, alone or with a teacher, and evaluates it."""

import argparse
import contextlib
import sys

from fakd.config import check_recipe, find_experiment, load_config, own_folder
from fakd.engine import evaluate, run
from fakd.engine.cli import launch_ranks
from fakd.engine.run_folder import numbered_folder

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
  go on after a stop         the same command with --resume; without OUTPUT_DIR, the last of its runs
  evaluate                   the same command with --eval-only [MODEL.WEIGHTS some.pth]
  a paper's experiment       %(prog)s --experiment FAKD/ade20k/pspnet_r18/fakd_paper

KEY VALUE pairs and flags come in any order. Without OUTPUT_DIR a run gets
a folder of its own, named after config and recipe: output/toyscenes/student_cwd, then -2, -3. OUTPUT_DIR,
SEED, SOLVER.MAX_ITER, SOLVER.AMP.ENABLED True and MODEL.DEVICE cpu are the keys used most;
fakd/config/defaults.py explains all. Exit codes: 0 done, 1 an error that the message explains, 143 or 130
stopped by SIGTERM or Ctrl-C with everything saved. FAKD_TRACEBACK=1 shows where an error arose.
"""


def train(args: argparse.Namespace) -> None:
    """What one rank does."""
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
    own = {action.dest: action for action in parser._actions}
    # detectron2's default is one port per user, which a second training of theirs finds taken.
    parser.set_defaults(dist_url="auto")
    own["dist_url"].help = "where several machines meet, tcp://HOST:PORT; one machine finds a free port"
    # detectron2's takes everything after the first KEY for keys and values; here flags may follow them.
    own["opts"].nargs, own["opts"].default = "*", []
    return parser.parse_intermixed_args()


def _own_place(given: argparse.Namespace) -> list[str]:
    """OUTPUT_DIR and a folder of the run's own, where nothing names one.

    Raises:
        ValueError: several machines would have to find the same one.
    """
    if "OUTPUT_DIR" in given.opts or not given.config_file:
        return []
    cfg = load_config(given.config_file, given.opts, given.recipe)
    if cfg.OUTPUT_DIR != own_folder(given.config_file, cfg.KD.RECIPE):
        return []  # a file names it
    if given.num_machines > 1:
        raise ValueError("Several machines need one folder for the run: name it, as OUTPUT_DIR.")
    folder = numbered_folder(cfg.OUTPUT_DIR, given.resume or given.eval_only)
    print(f"OUTPUT_DIR is '{folder}'.")
    return ["OUTPUT_DIR", folder]


def main() -> None:
    """Parses the command line and trains in as many processes as it says."""
    given = parse()
    if given.num_machines > 1 and given.dist_url == "auto":
        raise ValueError("Several machines need a place to meet: --dist-url tcp://HOST:PORT of the first.")
    if given.experiment:
        named = find_experiment(given.experiment)
        given.config_file, given.recipe = named.config_file, named.recipe
        given.opts = [*named.opts, *given.opts]
    if not given.allow_plugins:
        check_recipe(given.recipe, given.config_file, given.opts)
    given.opts += _own_place(given)
    ranks = (given.num_gpus, given.num_machines, given.machine_rank, given.dist_url)
    launch_ranks(train, ranks, given)
