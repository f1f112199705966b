"""The commands that make and score one run: ``reidlib train``, ``import`` and ``evaluate``."""

from __future__ import annotations

import argparse
import logging

from reidlib.cli.suite import pretraining_folders, warn_of_deviations
from reidlib.cli.trainings import train_all, train_curve
from reidlib.errors import InputError, check_choice, count_noun

logger = logging.getLogger("reidlib")


def train(arguments: argparse.Namespace) -> int:
    """Train a model on a benchmark, evaluate it and print its scores.

    MODEL is jlml, pyramid or another row of the experiments, listed below. A run
    that is already present is loaded. An interrupted training continues from its
    last checkpoint when the same command is given again.

    MODEL all trains what `reidlib reproduce --seeds N` trains, without notebooks:
    every row that a notebook shows, the first seed of all rows before the second.
    It says how much is left and, from measured durations, how long that takes.
    Trainings run in processes of their own; Ctrl-C or a kill loses at most an epoch
    of each. After a full disk is freed, the same command goes on.

    MODEL all with --folder trains instead what notebook 42 shows in the papers' tables:
    JLML and Pyramid on every partition of these benchmarks, or of each on the first N
    (--trials). Folders of CUHK03 and Market-1501 with training_only=true are what
    trainings on CUHK01, GRID and VIPeR start from.

    --set changes a field of the configuration for one row; none stands for no value,
    as in --set recipe.steps=500 --set recipe.epochs=none, and a list is JSON, as in
    --set input_size=[256,128]. The run's folder names the fields that differ from
    the row's; a training with the row's own values is the row's run. With --pretrain,
    fields of the recipe are set in the last training only: recipes are compared from
    one start.

    --validate N holds N training persons out, drawn by the seed, and scores the
    network on them a few times while it trains: R1 and mAP (step) in history.jsonl,
    the mAP in the progress. An image of each person and camera is a query, the others
    are the gallery. Test persons are never used, and the scores choose nothing: the
    last epoch is evaluated, as in every run. The run is another one than without
    --validate, because it trains on fewer persons.

    --curve trains MODEL's learning curve: on 1/16, 1/8, 1/4 and half of the benchmark's
    training persons, on 2, 4 and 8 images of each person, and on all; each from random
    weights, from rendered people (the row's own run on synthetic) and from the
    benchmarks of --pretrain, with the seeds 0 to N - 1 of --seeds. The smaller sets are
    among the larger ones, and the test is the same. On thinned images a training has at
    least 800 steps, with photographs 720 (not in smoke and paper). The command resumes
    like MODEL all, and `reidlib reproduce 44` shows the curves.

    --pretrain trains on other benchmarks first, on several of them together, and
    starts from there with new classifiers, as recalled of JLML on small benchmarks.
    With the option training_only=true it needs only the training folder. Without a
    folder, --pretrain synthetic starts from the row's own run on rendered people, if
    the profile renders any.

    For several GPUs start the command with torchrun, one process for each GPU. The
    processes train as one process with the same batch would, and write one run.
    After an error, torchrun adds its own report to the message.

    In the profile paper, Pyramid starts from torchvision's ImageNet weights of
    ResNet-101, which are downloaded at the first use; without a connection, a
    message says where to put the file. JLML starts from random weights, although its
    authors, says a survey, pre-trained on ImageNet: such weights are available only
    for its ResNet-50 variant (trunk="resnet50", weights="imagenet" in
    reidlib.training.config.JLMLConfiguration).

    For your own images, the benchmark is folder or csv. Scores ignore images of the
    query's person from the query's camera, so with a single camera no query has a
    match. If all images are from one camera, or cameras are unknown,
    --benchmark folder,same_camera=true gives every image a different camera;
    images of one moment then make the task easy.

    examples:
      reidlib train jlml
      reidlib train all --seeds 3 --jobs 2
      reidlib train all --profile photographs --folder viper=DIR --trials 3
      reidlib train jlml --set recipe.epochs=40 --set model.parts=6
      reidlib train pyramid --validate 30
      reidlib train jlml --curve --benchmark folder,validation=true --data-root DIR
      reidlib train pyramid --profile full --seed 1
      reidlib train jlml --profile paper --benchmark cuhk03,trial=3 --data-root DIR
      reidlib train jlml --profile paper --benchmark viper --data-root DIR --pretrain cuhk03=DIR
      reidlib train jlml --profile paper --benchmark market1501,validation=true --data-root DIR
      reidlib train pyramid --benchmark folder --data-root DIR
      torchrun --nproc_per_node 4 -m reidlib train pyramid --profile full

    files, in a folder of reports/runs or of --runs DIR, which the command prints:
      config.json            the configuration, which identifies the run
      history.jsonl          losses and accuracy of each epoch, validation scores of some;
                             steps.npz: losses and accuracy of each step
      weights.pt             the trained weights; checkpoint.pt during the training
      scores.json            CMC and mAP of each branch; rankings.npz: ranked lists
      run.json               device, duration, memory, versions and commit
    What a failed training of `train all` printed is in reports/PROFILE/tasks.
    """
    from reidlib.data.readers import load_together
    from reidlib.experiments import Setup
    from reidlib.experiments.obtain import obtain, plan_chain
    from reidlib.experiments.rows import EXPERIMENTS, configure, get_profile
    from reidlib.training import distributed
    from reidlib.training.device import Execution

    models = [*EXPERIMENTS, "all"]
    check_choice(f"a model is one of {', '.join(models)}", arguments.model, models)
    if arguments.model == "all":
        return train_all(arguments)
    if arguments.curve:
        return train_curve(arguments)
    if arguments.seeds or arguments.jobs or arguments.folder or arguments.trials:
        rule = "--seeds, --jobs, --folder and --trials are for all rows, `reidlib train all`, or for --curve"
        value = arguments.model
        raise InputError(rule, value, "train a row's seeds one after another, with --seed")
    settings = dict(arguments.set)
    if len(settings) < len(arguments.set):
        names = ", ".join(name for name, _ in arguments.set)
        raise InputError("a field is set once", names, "give one value for each field")
    # Now, because the benchmark may have to be rendered first.
    configure(arguments.model, get_profile(arguments.profile), settings, benchmark="", data="")
    with distributed.process_group(
        Execution(device=arguments.device, compile=arguments.compile)
    ) as execution:
        first, processes = distributed.world().rank == 0, distributed.world().size
        with distributed.first_process_first():  # it may render the benchmark
            setup = Setup(
                arguments.profile, arguments.benchmark, arguments.data_root, device=execution.device
            )
            benchmark = setup.data
        with distributed.first_process_first():  # some readers extract images
            folders = pretraining_folders(arguments)
            others = load_together(folders)
            before = () if others is None else (others,)
        if first:
            warn_of_deviations(folders, setup)
        options = {"before": before, "seed": arguments.seed, "settings": settings}
        options |= {"validation_persons": arguments.validate or 0}
        links = plan_chain(arguments.model, setup.profile, benchmark, **options)
        for link in links if first else ():
            training, validation = link.divide()
            images = count_noun(len(training), "images")
            images += f", {count_noun(len(validation), 'images')} for validation" if validation else ""
            logger.info(
                f"training {arguments.model} on {link.benchmark.specification} ({images}) "
                f"on {execution.describe()}" + (f" in {processes} processes" if processes > 1 else "")
            )
        run = obtain(links, runs=arguments.runs, execution=execution)
        assert run.scores is not None  # `obtain` has evaluated it
        if first:
            print(f"{_score_table(run.scores)}\nrun: {run.folder}")
    return 0


def import_(arguments: argparse.Namespace) -> int:
    """Make a run of a Pyramid checkpoint that the authors' code or YouReID wrote.

    CHECKPOINT is a file of PersonReID-Pyramid or YouReID with a ResNet-50 or
    ResNet-101 trunk, all 21 parts and any number of identities: a state_dict, alone
    or in a dictionary, with or without the prefix "module.". Files that hold whole
    Python objects are refused, because reading them would run their code.

    The name of the trunk in the keys tells which code wrote the file: "base" is
    PersonReID-Pyramid, "resnet" is YouReID. The run is evaluated as that code does
    it: images of 384x128 pixels, resized bicubically and compared by the parts'
    features as they are (PersonReID-Pyramid), or resized bilinearly and compared by
    features of unit length (YouReID, by the order of its cosine distances). What of
    the file is not used is listed.

    The run belongs to the benchmark that is given, on which `reidlib evaluate` scores
    it. --profile only selects the size of the embedded benchmark. It has no history,
    because a checkpoint does not tell how it was trained. The same file is imported
    once for each benchmark.

    examples:
      reidlib import ckpt.pth --as pyramid --benchmark market1501 --data-root DIR
      reidlib evaluate RUN
      reidlib search queries/ images/ --run RUN --out found

    files, in a folder of reports/runs or of --runs DIR, which the command prints:
      config.json            the configuration, with the file's SHA-256
      weights.pt             the weights, by the names of reidlib.models.Pyramid
      run.json               the file's name, the code that wrote it, versions
    """
    check_choice("a checkpoint is imported as one of: pyramid", arguments.network, ("pyramid",))
    from reidlib.experiments import Setup
    from reidlib.experiments.imports import import_run, read_pyramid

    setup = Setup(arguments.profile, arguments.benchmark, arguments.data_root, runs=arguments.runs)
    checkpoint = read_pyramid(arguments.checkpoint)
    run, existed = import_run(checkpoint, setup.data, setup.runs)
    print(
        "\n".join([checkpoint.describe(), f"run: {run.folder}" + (" (imported before)" if existed else "")])
    )
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Score a trained run again and print its scores.

    RUN is the folder that `reidlib train` prints. The benchmark is read from the
    folder that the run was trained on, or from --data-root.

    --benchmark scores the run on another benchmark, in --data-root, by all its
    protocols. Without --data-root, synthetic is rendered in the size of --profile. Of
    a benchmark with several partitions it is one, trial=N; notebook 43 takes means.
    The scores are kept beside the run's own, and computed once.

    A run is refused if persons that it was trained on are tested, or those of a run
    that it started from: by their numbers if the same reader reads both, otherwise by
    the content of image files. Another image of a person is not noticed by that. What
    was not compared, because training images are not at hand, is said.

    --distractors adds the half million images of Market-1501's distractors_500k to
    the gallery. They are embedded a few hundred at a time, in about 1.1 GiB of memory,
    and their features need about 2 GB of disk for JLML.

    --metrics scores the joined feature instead by metrics learnt from the images that
    the run was trained on (KISSME, XQDA, NFST, CRAFT), and by L2 of the same features.
    These scores are kept with the run and computed once; notebooks 40 and 90 read them,
    and `reidlib evidence add` keeps them. The claim of a generic metric needs KISSME,
    XQDA and CRAFT; NFST takes memory and minutes on many images.

    examples:
      reidlib evaluate reports/runs/NAME
      reidlib evaluate reports/runs/NAME --metrics all
      reidlib evaluate reports/runs/NAME --metrics KISSME,XQDA,CRAFT
      reidlib evaluate reports/runs/NAME --data-root DIR
      reidlib evaluate reports/runs/NAME --distractors
      reidlib evaluate reports/runs/NAME --benchmark viper,trial=3 --data-root DIR

    Scores that cannot be written to RUN are printed; the exit status is then 1, as it
    is if a metric cannot be learnt.

    files:
      RUN/scores.json, RUN/rankings.npz         replaced
      RUN/distractors.json                      with --distractors
      RUN/across/BENCHMARK-DATA.json            with --benchmark
      RUN/metrics/METRIC.json                   with --metrics
      reports/features/NAME-distractors.npy     may be removed afterwards
    """
    from reidlib.experiments import Setup
    from reidlib.experiments.evaluate import (
        evaluate_across,
        evaluate_run,
        evaluate_with_distractors,
        is_own,
        load_benchmark,
    )
    from reidlib.training.device import Execution
    from reidlib.training.runs import Run

    run, name, root = Run.open(arguments.run), arguments.benchmark, arguments.data_root
    if name and arguments.distractors:
        value = f"--distractors with --benchmark {name}"
        raise InputError("--distractors extends the run's own benchmark", value, "leave out one of the two")
    if arguments.profile and (root or name != "synthetic"):
        value = f"--profile {arguments.profile}, --benchmark {name}, --data-root {root}"
        raise InputError("--profile is for --benchmark synthetic without a folder", value, "leave it out")
    metrics = _metrics(arguments.metrics)
    if metrics and (name or arguments.distractors):
        value = f"--metrics with {f'--benchmark {name}' if name else '--distractors'}"
        raise InputError("--metrics are of the run's own benchmark", value, "leave out one of the two")
    other = Setup(arguments.profile or "quick", name, root, device=arguments.device).data if name else None
    if other and is_own(run, other):
        logger.info(f"note: {other.specification} is the run's own benchmark: these are its own scores")
        root, other = other.root, None
    benchmark = other or load_benchmark(run, root or "", distractors=arguments.distractors)
    logger.info(f"evaluating {run.folder.name} on {benchmark.specification} in {benchmark.root}")
    execution, errors, failed = Execution(device=arguments.device), [], False
    settings = {"execution": execution, "on_unwritable": errors.append}
    if metrics:
        from reidlib.experiments.metric_study.kept import score_run

        for metric, scores in score_run(run, benchmark, metrics, **settings).items():
            refused = isinstance(scores, InputError)
            print(f"{metric:6}", scores if refused else _short_scores(scores["branches"]["full"]))
            failed = failed or refused
    else:
        scores = (evaluate_across if other else evaluate_run)(run, benchmark, **settings)
        print(_score_table(scores))
        for remark in scores.get("not_compared", ()):
            logger.warning(f"note: {remark}")
    if arguments.distractors:
        scores = evaluate_with_distractors(run, benchmark, **settings)
        print(f"with {scores['num_distractors']:,} further distractors: {_short_scores(scores)}")
    if errors:
        logger.warning(
            f"note: these scores were not kept, because {run.folder} cannot be written ({errors[0].value}); "
            "to keep them, free space there, or evaluate a copy of the folder that you can write to"
        )
    return 1 if errors or failed else 0


def _metrics(text: str | None) -> tuple[str, ...]:
    """Read the names of --metrics; none without the option."""
    from reidlib.experiments.rows import LEARNT_METRICS

    if text in (None, "all"):
        return LEARNT_METRICS if text else ()
    names = tuple(text.split(","))
    for name in names:
        check_choice(f"--metrics names all, or of {', '.join(LEARNT_METRICS)}", name, LEARNT_METRICS)
    return names


def _score_table(scores: dict) -> str:
    """Format R1, R5, R10, both kinds of mAP and mINP of each branch, in per cent."""
    rows = ["feature   R1    R5    R10   mAP (trapezoid)  mAP (step)  mINP"]
    for branch, kinds in scores["branches"].items():
        step, trapezoid = kinds["step"], kinds["trapezoid"]
        rows.append(
            f"{branch:7} "
            + " ".join(f"{100 * step['cmc'][rank]:5.1f}" for rank in ("1", "5", "10"))
            + f"  {100 * trapezoid['mean_average_precision']:15.1f}  "
            + f"{100 * step['mean_average_precision']:10.1f} {100 * step['mean_inp']:5.1f}"
        )
    full = scores["branches"]["full"]
    for pooling, kinds in full.get("multi_query", {}).items():
        rows.append(f"multi-query ({pooling} of its boxes): {_short_scores(kinds)}")
    for title, protocol in full.get("protocols", {}).items():
        shares = ", ".join(f"R{rank} {100 * share:.1f}" for rank, share in protocol["cmc"].items())
        rows.append(f"{title} (the benchmark's own protocol): {shares}")
    step = full["step"]
    rows.append(f"{step['num_valid_queries']} of {step['num_queries']} queries have a match in the gallery")
    return "\n".join(rows)


def _short_scores(kinds: dict) -> str:
    """Format R1 and both kinds of mAP in per cent, on one line."""
    step, trapezoid = kinds["step"], kinds["trapezoid"]
    return (
        f"R1 {100 * step['cmc']['1']:.1f}, mAP {100 * trapezoid['mean_average_precision']:.1f} (trapezoid), "
        f"{100 * step['mean_average_precision']:.1f} (step)"
    )
