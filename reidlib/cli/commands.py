"""One function for each command of ``reidlib``; its docstring is the text of ``reidlib COMMAND --help``.

A function gets the parsed arguments and returns the exit status. Heavy modules are imported only when they
are needed, so that a mistake in the arguments is reported at once.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

# Commands in modules of their own.
from reidlib.cli.plan import plan as plan
from reidlib.cli.runs import evaluate as evaluate
from reidlib.cli.runs import import_ as import_
from reidlib.cli.runs import train as train
from reidlib.cli.suite import reproduce as reproduce
from reidlib.errors import InputError, count_noun

logger = logging.getLogger("reidlib")


def evidence(arguments: argparse.Namespace) -> int:
    """List the evidence of a clone, or add runs to it: small files of runs that are kept in git.

    Evidence is configuration, scores with their sums by person, device, seconds,
    versions, commit and the last epoch of each run, without weights, images, names of
    images and paths. From it `reidlib reproduce 90 --evidence` makes scores, intervals
    and the ledger of claims, without training.

    To pool seeds from several machines, train other seeds there, and add their folder
    of runs, or their folder of evidence. Only runs with a row's own values of today are
    added. A run of other data than its set is refused, and so is another result for a
    row and a seed that the set has: devices round differently, and one result is kept.
    Unfinished trainings are left out.

    Each new line has a digest of every claim's test that compares its row. Where a test
    is changed or written later, the ledger says of how many seeds the runs are older.

    Exit status 1: some runs were refused, each with its reason.

    examples:
      reidlib evidence
      reidlib evidence add reports/runs
      reidlib evidence add ../another-clone/reports/evidence

    files, in reports/evidence of the clone or --to DIR:
      PROFILE-BENCHMARK/ROW.jsonl    a line for each run; lines are only added
    """
    from reidlib import files
    from reidlib.analysis.claims import digests_by_row
    from reidlib.experiments.evidence import add, describe

    if (arguments.action, bool(arguments.source)) not in ((None, False), ("add", True)):
        value = " ".join(filter(None, ("evidence", arguments.action, arguments.source)))
        rule = "the command is `reidlib evidence` or `reidlib evidence add FOLDER`"
        raise InputError(rule, value, "name the folder of runs after add")
    if arguments.source is None:
        lines = describe(arguments.to)
        print("\n".join(lines) or f"no evidence in {arguments.to or files.evidence()}")
        return 0
    addition = add(arguments.source, arguments.to, digests_by_row())
    for name in addition.added:
        print(f"added: {name}")
    for line in addition.refused:
        print(f"refused: {line}")
    unfinished = f", {addition.unfinished} unfinished" if addition.unfinished else ""
    print(
        f"{count_noun(len(addition.added), 'runs')} added, {addition.present} there already, "
        f"{len(addition.refused)} refused{unfinished}"
    )
    return 1 if addition.refused else 0


def tables(arguments: argparse.Namespace) -> int:
    """Write the ledger, scores and differences as CSV and LaTeX, to compute with and to cite.

    The numbers are those of the evidence that a clone keeps: on rendered people and on
    photographs, or on --benchmark alone. With --runs they are those of a folder of runs,
    of which only a row's own trainings with scores are taken.

    A CSV has one value a cell, in full precision. A LaTeX file has a longtable with the
    text of a report; its caption names the set, the protocol, the profile, the seeds and
    the commits of the trainings, and its first line has the command. It needs the
    packages array, booktabs and longtable.

    examples:
      reidlib tables DIR
      reidlib tables DIR --runs reports/runs
      reidlib tables DIR --benchmark synthetic

    files, in DIR, each as .csv and .tex:
      ledger                 a claim's test with its digest, outcome and reason
      scores-SET             R1, R5, R10, R20 and mAP of each row and feature
      differences-SET        the differences that decide the claims
      agreement              differences on both sets beside each other
    """
    import tempfile

    from reidlib.analysis.tables import write_tables
    from reidlib.data.readers import canonical
    from reidlib.experiments.evidence import NAMES, Evidence, add

    names = NAMES
    if arguments.benchmark:  # refused if it is none
        name = arguments.benchmark.removesuffix("-pretrained")
        names = [canonical(name) + arguments.benchmark[len(name) :]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = temporary if arguments.runs else None
        if arguments.runs:  # as evidence, so that the same is checked, and data are not mixed
            for line in add(arguments.runs, folder).refused:
                logger.warning(f"note: not used: {line}")
        kept = [Evidence.read(arguments.profile, name, folder) for name in names]
        kept = [each for each in kept if each.runs]
        if not kept:
            where = f"{arguments.profile} on {' or '.join(names)} in {arguments.runs or 'reports/evidence'}"
            mend = "see `reidlib evidence` for what there is, or train rows and give their folder with --runs"
            raise InputError("tables are of the runs of a profile and a benchmark", f"none of {where}", mend)
        print(*write_tables(arguments.folder, kept, arguments.line), sep="\n")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Compare a benchmark's folder with the official counts and rules, and read every image.

    NAME is a benchmark of the list below, with options after commas. The same text
    is the --benchmark of other commands; in Python,
    reidlib.data.load("cuhk03", DIR, boxes="detected", trial=3) is the same as
    cuhk03,boxes=detected,trial=3. Notebook 42 says where to get each benchmark, and
    notebooks/README.md, section "Real benchmarks", lists their protocols.

    Exit status 0: readable and, unless files were left out, complete; 1: problems
    were found and are listed. Files that look like images and are not read, such as
    .heic or images in hidden folders, are counted and named. Links that lead nowhere
    are problems.
    Images that an earlier check could read, and that have not changed since, are
    not read again without --again.

    Random partitions (cuhk01, viper, folder, csv) depend only on hashes, so they are
    the same on every machine; partitions=FILE uses others, in the format that
    reidlib/data/readers/partitions describes.

    validation=true divides the training persons into training and validation, and
    training_only=true serves for --pretrain; both need and read only training images.

    examples:
      reidlib check market1501 DIR
      reidlib check market1501,validation=true DIR
      reidlib check cuhk03,boxes=detected,split=new DIR
      reidlib check cuhk01,test_persons=100,trial=3 DIR
      reidlib check csv images.csv

    files:
      reports/data           images that are extracted from cuhk-03.mat, once; an
                             interrupted extraction continues where it stopped
      reports/checked        which images could be read
    """
    from reidlib.data.check import check as check_folder
    from reidlib.data.readers import parse

    name, options = parse(arguments.name)
    settings = {"reread": arguments.again, **options}
    report = check_folder(name, Path(arguments.root), **settings)
    print(report.text())
    return 0 if report.ok else 1


def embed(arguments: argparse.Namespace) -> int:
    """Compute features of your own images with a trained run and write them to a file.

    The images show upright, whole people, cut out as a detector cuts them. An
    interrupted command continues where it stopped.

    examples:
      reidlib embed reports/runs/NAME images/ features.parquet
      reidlib embed reports/runs/NAME people.csv features.npz --device cpu

    files:
      OUT                    .npz: arrays features (N, D), names, persons, cameras;
                             .parquet: columns name, person, camera, feature
    """
    from reidlib.search.features import warnings_of, write_features

    embedded = write_features(arguments.run, arguments.images, arguments.out, device=arguments.device)
    print(
        f"{count_noun(len(embedded), 'images')}, {embedded.features.shape[1]} numbers each: {arguments.out}"
    )
    for warning in warnings_of(embedded):
        print(f"remark: {warning}")
    return 0


def search(arguments: argparse.Namespace) -> int:
    """Search images of people for the people of some query images.

    The images show upright, whole people, cut out as a detector cuts them. Do not
    expect a run that was trained on rendered people to work on photographs: train it
    on real images first, of other people than those of the search.

    QUERY and GALLERY are an image, a folder of images, a folder for each person, a
    CSV (columns path, person, camera), or a file of `reidlib embed`.

    If persons are known, the command also measures how far apart images of one
    person and of two persons are, and the distance up to which two images are taken
    for one person, so that this is wrong for one in a thousand pairs of different
    people (--false-match-rate). If they are not known, --calibrate names images
    whose persons are. A rate that too few pairs support is refused.

    Limits of this threshold: The rate is for each pair, so a search among thousands
    of images finds false matches for many queries; the command prints how many to
    expect. Many pairs of one person are beyond the threshold, so a larger distance
    means "not sure", never "another person". It is valid for the people and cameras
    that it was measured on, and they must not be people that the run was trained on.
    Read "Responsible use" in the README first.

    examples:
      reidlib search query.jpg images/ --run reports/runs/NAME --out found
      reidlib search queries/ images/ --run reports/runs/NAME --out found --calibrate known/
      reidlib search queries.parquet gallery.parquet --out found --top 50

    files, in --out DIR:
      ranked.csv             every ranked list
      contact_sheet.jpg      the first queries in the order of their names, not the best
      distances.png          distances of pairs, if persons are known
      threshold.json         the threshold and how it was measured, if persons are known
    """
    from reidlib.search import search as search_images

    print(search_images(**vars(arguments)).text)
    return 0


def render(arguments: argparse.Namespace) -> int:
    """Render the embedded benchmark: synthetic people, in Market-1501's layout.

    The same size and seed give the same pixels on every machine. Other commands
    render what they need into reports/data by themselves.

    examples:
      reidlib render quick DIR
      reidlib render full DIR --seed 1 --device cuda

    files, in FOLDER:
      bounding_box_train, query, bounding_box_test     the images
      factors.csv            how each image was made: pose, camera, occlusion, …
      rendering.json         size, seed and counts
    """
    from reidlib.data.synthetic.render import render as render_benchmark
    from reidlib.training.device import Execution

    device = Execution(device=arguments.device).rendering_device
    folder = render_benchmark(arguments.size, Path(arguments.folder), seed=arguments.seed, device=device)
    print(f"{arguments.size}: {folder}")
    return 0


def disk(arguments: argparse.Namespace) -> int:
    """Say what is in the home, reports/ or $REIDLIB_HOME, and what makes it again.

    Without WHAT there is a line for each kind; with kinds or entries, a line for each
    entry. Sizes are of the allocated blocks, as `du` counts them, without folders. A
    file of several names (hard links) counts once. "unchanged for" is the time since
    the last change of a file. Links are not followed.

    Exit status 1: something is foreign, which has a line of its own: not made by
    reidlib, a link, or not readable.

    examples:
      reidlib disk
      reidlib disk runs features

    files: none are written
    """
    from reidlib.cli.disk import show

    return show(arguments.what)


def clean(arguments: argparse.Namespace) -> int:
    """Say what of the home may go, and remove it with --yes.

    Without WHAT, these go: decoded images, features of runs that are not in the home,
    checkpoints of finished trainings, reports unchanged for 30 days, and for one day
    what killed processes were writing. Kinds or entries, as `reidlib disk` lists them,
    go if they are named; runs, unfinished or failed trainings, records, rendered images
    and explored notebooks only then.

    What a process uses stays, and the exit status is then 1. While another process works
    with the home (a training, a report, an open notebook), all stays but reports,
    checkpoints and unfinished trainings that nothing writes. Foreign files stay, entries
    that hold some, empty lock files, and all that is not in the home, such as a folder
    of --runs or --out.

    examples:
      reidlib clean
      reidlib clean --yes
      reidlib clean images reports --older 7 --yes
      reidlib clean runs/NAME --yes

    files: what is listed is removed with --yes
    """
    from reidlib.cli.disk import clean as clean_home

    return clean_home(arguments.what, arguments.older, yes=arguments.yes)
