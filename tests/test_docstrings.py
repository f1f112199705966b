"""The public interface is documented in Google form; everything else by one line."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest

import reidlib.cli.commands

PACKAGE = Path(__file__).parent.parent / "reidlib"
# What readers of the notebooks and programs of their own call.
SECTIONS = "Args|Attributes|Returns|Yields|Raises"
PUBLIC = (
    "data.load",
    "data.readers.read",
    "data.Benchmark",
    "data.Split",
    "data.check.check",
    "data.check.image_sizes",
    "data.benchmark.Protocol",
    "data.benchmark.combine",
    "data.readers.layout.Reading",
    "data.readers.market.market1501",
    "data.readers.two_view.viper",
    "data.readers.two_view.cuhk01",
    "data.readers.two_view.grid",
    "data.readers.cuhk03.cuhk03",
    "data.decoding.decode",
    "data.decoding.treatments",
    "data.images.decode_blocks",
    "data.images.ImageStore",
    "data.images.ImageStore.open",
    "data.images.ImageStore.batch",
    "data.images.ImageStore.batches",
    "data.augmentation.Variations",
    "data.augmentation.draw_variations",
    "data.samplers.PKSampler",
    "data.samplers.Prefetcher",
    "data.rules.is_match",
    "data.rules.is_ignored",
    "data.synthetic.render.render",
    "data.synthetic.factors.Factors",
    "models.JLML",
    "models.Pyramid",
    "models.jlml.JLMLOutput",
    "models.pyramid.PyramidOutput",
    "models.residual.imagenet_weights",
    "models.residual.initialise",
    "training.losses.jlml_objective",
    "training.losses.batch_hard_triplet",
    "training.losses.multi_branch_cross_entropy",
    "training.losses.Terms",
    "training.dynamic.Balancing",
    "training.dynamic.balance_losses",
    "training.config.JLMLConfiguration",
    "training.config.PyramidConfiguration",
    "training.config.RunConfiguration",
    "training.config.Recipe",
    "training.config.Augmentation",
    "training.loop.train",
    "training.checkpoint.save_checkpoint",
    "training.checkpoint.restore_checkpoint",
    "training.device.Execution",
    "training.distributed.process_group",
    "training.runs.Run",
    "training.runs.Run.open",
    "ranking.Embeddings",
    "ranking.evaluate",
    "ranking.metrics.Scores",
    "ranking.metrics.Status",
    "ranking.metrics.RankedLists",
    "ranking.metrics.ranked_list",
    "ranking.metrics.evaluate_distances",
    "ranking.pool_multi_query",
    "reranking.k_reciprocal",
    "experiments.rows.Experiment",
    "experiments.rows.Profile",
    "experiments.rows.Perturbation",
    "experiments.Setup",
    "experiments.Setup.obtain",
    "experiments.Setup.gather",
    "experiments.Runs",
    "experiments.features.embed",
    "experiments.features.embed_to_disk",
    "experiments.features.TrainedNetwork",
    "experiments.imports.Checkpoint",
    "experiments.imports.read_pyramid",
    "experiments.evaluate.evaluate_run",
    "experiments.evaluate.evaluate_across",
    "experiments.evaluate.load_benchmark",
    "experiments.evaluate.compare_protocols",
    "analysis.ExperimentScores",
    "analysis.ExperimentScores.difference",
    "analysis.ExperimentScores.table",
    "analysis.ExperimentScores.spreads",
    "analysis.Cell",
    "analysis.style_table",
    "analysis.scores.Spread",
    "analysis.ablations.traces.batch_table",
    "analysis.statistics.Interval",
    "analysis.statistics.paired",
    "analysis.ablations.Ablation",
    "analysis.ablations.score_table",
    "analysis.ablations.difference_table",
    "analysis.ablations.difference_sentences",
    "analysis.ablations.description_table",
    "analysis.ablations.report_table",
    "analysis.benchmark_runs.sections",
    "analysis.benchmark_runs.AcrossScores",
    "analysis.benchmark_runs.gather_across",
    "analysis.learning_curves.Curve",
    "analysis.learning_curves.Equivalent",
    "analysis.learning_curves.Point",
    "analysis.learning_curves.curve_chains",
    "analysis.learning_curves.starts",
    "analysis.benchmark_runs.gather_own_runs",
    "analysis.benchmark_runs.kept_runs",
    "analysis.benchmark_runs.own_rows",
    "analysis.benchmark_runs.rank1_scores",
    "analysis.claims.Claim",
    "analysis.claims.decide",
    "analysis.claims.decide_sequentially",
    "analysis.claims.gather_until_decided",
    "analysis.claims.Verdict",
    "analysis.claims.claims_of_notebook",
    "analysis.claims.result_fields",
    "analysis.claims.verdict_sentence",
    "analysis.claims.forest",
    "analysis.claims.digest",
    "analysis.claims.ledger",
    "analysis.claims.older_seeds",
    "analysis.claims.required_experiments",
    "analysis.claims.verdicts_by_seeds",
    "analysis.claims.compare_with_all",
    "analysis.claims.seed_lesson",
    "analysis.claims.seed_subsets.subset_outcomes",
    "analysis.complexity.complexity",
    "analysis.complexity.Complexity",
    "analysis.complexity.ForwardPass",
    "analysis.complexity.Network",
    "analysis.complexity.layer_table",
    "analysis.complexity.measure_forward",
    "analysis.complexity.performance.Roof",
    "analysis.complexity.performance.Step",
    "analysis.complexity.performance.measure_roof",
    "analysis.complexity.performance.measure_step",
    "analysis.complexity.performance.measure_growth",
    "analysis.benchmark_tables.published_row",
    "analysis.benchmark_tables.constant_status",
    "analysis.benchmark_tables.constants_table",
    "analysis.benchmark_tables.methods_table",
    "analysis.benchmark_tables.pyramid_results",
    "analysis.benchmark_tables.add_data_root",
    "analysis.benchmark_tables.check_folders",
    "analysis.benchmark_tables.choose_protocol_benchmark",
    "analysis.table_records",
    "analysis.misalignment.perturbation_curves",
    "analysis.misalignment.perturbation_table",
    "analysis.misalignment.score_drop_table",
    "analysis.misalignment.score_drops",
    "descriptors.stripe_histograms",
    "descriptors.lomo",
    "descriptors.gog",
    "descriptors.normalise_gog",
    "experiments.metric_study.kept.score_run",
    "experiments.metric_study.learn",
    "analysis.claims.required_metrics",
    "experiments.metric_study.published.measure",
    "experiments.metric_study.published.write_measured",
    "analysis.claims.published_metrics.rows_table",
    "analysis.claims.published_metrics.comparison_table",
    "analysis.claims.published_metrics.choices_table",
    "analysis.claims.published_metrics.settings_table",
    "metric_learning.KISSME",
    "metric_learning.KISSME.fit",
    "metric_learning.KISSME.fit_pairs",
    "metric_learning.XQDA",
    "metric_learning.XQDA.fit",
    "metric_learning.XQDA.fit_views",
    "metric_learning.NullSpace",
    "metric_learning.NullSpace.fit",
    "metric_learning.CRAFT",
    "metric_learning.CRAFT.fit",
    "metric_learning.Metric",
    "metric_learning.Metric.project",
    "metric_learning.Metric.distances",
    "metric_learning.Metric.embeddings",
    "visual.browser.RankingBrowser",
    "visual.browser.collection.embed_benchmark",
    "visual.browser.views.Options",
    "visual.browser.views.reranker",
    "visual.browser.views.most_changed",
    "visual.browser.views.view",
    "visual.browser.views.view_scores",
    "visual.browser.views.query_order",
    "visual.browser.pictures.view_figure",
    "visual.figures.performance.roofline",
    "visual.figures.performance.growth_plot",
    "visual.figures.performance.ratio_bars",
    "visual.figures.verdicts.verdict_bars",
    "visual.figures.ablations.ablation_score_bars",
    "visual.figures.ablations.ablation_difference_plot",
    "visual.figures.ablations.pair_plot",
    "visual.figures.ablations.setting_plot",
    "visual.figures.images.stored_ranked_lists",
    "visual.figures.images.factor_sheet",
    "visual.figures.images.heatmap",
    "visual.figures.images.histograms",
    "visual.figures.images.image_grid",
    "visual.figures.scores.difference_plot",
    "visual.figures.scores.cmc_curves",
    "visual.figures.benchmarks.protocol_scores",
    "visual.figures.benchmarks.learning_curves",
    "visual.figures.benchmarks.across_scores",
    "visual.figures.benchmarks.published_rank1",
    "visual.figures.scores.score_curves",
    "visual.figures.models.input_norm_plot",
    "visual.figures.models.input_unit_norms",
    "visual.figures.models.kind_colour",
    "visual.figures.models.part_pictures",
    "visual.figures.training.balancing_modes",
    "visual.figures.training.balancing_steps",
    "visual.figures.training.training_curves",
    "visual.attention.maps.part_attention",
    "visual.attention.pairs.AnswerPairs",
    "visual.attention.pairs.answer_pairs",
    "visual.attention.pairs.attribution_sentence",
    "visual.attention.pairs.comparison_rows",
    "visual.attention.pairs.preference_sentence",
    "visual.attention.pairs.training_pairs",
    "visual.attention.deletion.count_better_than_random",
    "visual.attention.deletion.deletion_by_kind",
    "visual.attention.deletion.deletion_sentence",
    "visual.attention.deletion.score_rows",
    "visual.attention.deletion.stride_rows",
    "visual.attention.deletion.stride_sentence",
    "visual.attention.figures.area_figure",
    "visual.attention.figures.average_figure",
    "visual.attention.figures.deletion_figure",
    "visual.attention.figures.pair_figure",
    "visual.attention.figures.wrong_answer_figure",
    "search.search",
    "search.verification.VerificationPairs",
    "reports.Result",
    "reports.Result.from_parameters",
    "reports.Result.figure",
    "reports.Result.finish",
    "reports.reproduce.Plan",
    "reports.reproduce.reproduce",
    "errors.InputError",
    "values.read_value",
)


def public_object(name: str):
    """The object that a dotted name below ``reidlib`` means."""
    parts = ("reidlib." + name).split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(name)


def documented_parameters(docstring: str, section: str) -> set[str]:
    """Names in a section of a docstring in Google form."""
    block = re.search(rf"^{section}:\n((?:(?: +.*)?\n?)*)", docstring, re.MULTILINE)
    lines = re.findall(r"^    ([\w*][\w*, ]*?)(?: \([^)]*\))?:", block[1], re.MULTILINE) if block else []
    return {name.strip("* ") for line in lines for name in line.split(",")}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstring_is_in_google_form(name):
    thing = public_object(name)
    docstring = inspect.getdoc(thing)
    first = docstring.splitlines()[0]
    assert first.endswith("."), first
    assert docstring.splitlines()[1:2] in ([], [""]), "a blank line follows the summary"
    is_enum = inspect.isclass(thing) and issubclass(thing, Enum)
    parameters = thing.__members__ if is_enum else inspect.signature(thing).parameters
    documented = documented_parameters(docstring, "Args")
    if inspect.isclass(thing):
        documented |= documented_parameters(docstring, "Attributes")
    elif inspect.signature(thing).return_annotation not in ("None", None, inspect.Signature.empty):
        assert re.search("^(Returns|Yields):", docstring, re.MULTILINE)
    public = {parameter for parameter in parameters if parameter != "self" and not parameter.startswith("_")}
    assert public <= documented, public - documented


def package_nodes(*types: type[ast.AST]) -> Iterator[tuple[str, ast.AST, str]]:
    """Yield the place, node and docstring of each documented node of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, types) and (docstring := ast.get_docstring(node)):
                place = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 1)}"
                yield f"{place} {getattr(node, 'name', 'module')}", node, docstring


def parameter_names(function: ast.FunctionDef) -> set[str]:
    """The names of a function's public parameters."""
    parameters = [parameter for parameter in ast.walk(function.args) if isinstance(parameter, ast.arg)]
    names = {parameter.arg for parameter in parameters} - {"self", "cls"}
    return {name for name in names if not name.startswith("_")}


def field_names(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """The names that a class's docstring must document, and those that it may document."""
    functions = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    fields = {item.target.id: item for item in node.body if isinstance(item, ast.AnnAssign)}
    assigned = {name.id for item in node.body if isinstance(item, ast.Assign) for name in item.targets}
    own = {
        target.attr
        for function in functions.values()
        for target in ast.walk(function)
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
    }
    if "__init__" in functions:
        required = parameter_names(functions["__init__"])
    else:
        required = {
            name
            for name, item in fields.items()
            if not name.startswith("_")
            and "ClassVar" not in ast.unparse(item.annotation)
            and "init=False" not in ast.unparse(item)
        }
    return required, required | fields.keys() | functions.keys() | assigned | own


def test_documented_parameters_and_fields_exist_and_are_complete():
    wrong = []
    for place, node, docstring in package_nodes(ast.FunctionDef, ast.ClassDef):
        documented = documented_parameters(docstring, "Args") | documented_parameters(docstring, "Attributes")
        if isinstance(node, ast.ClassDef):
            required, allowed = field_names(node)
        else:
            required = allowed = parameter_names(node)
        if documented and not required <= documented <= allowed:
            wrong.append(f"{place}: {sorted(required - documented)} {sorted(documented - allowed)}")
    assert not wrong


FILE_ENDINGS = (".csv", ".html", ".ipynb", ".jpg", ".json", ".npz", ".png", ".pt")


def test_dotted_names_in_docstrings_resolve():
    modules: dict[str, list[str]] = {}  # last part of a module's name -> names of modules below reidlib
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts:
            modules.setdefault(parts[-1], []).append(".".join(parts))
    unresolved, resolved = [], 0
    for place, node, docstring in package_nodes(ast.FunctionDef, ast.ClassDef, ast.Module):
        for name in re.findall(r"``(?:reidlib\.)?(\w+(?:\.\w+)+)(?:\([^`]*\))?``", docstring):
            head, _, rest = name.partition(".")
            is_parameter = isinstance(node, ast.FunctionDef) and head in parameter_names(node)
            if head not in modules or is_parameter or name.endswith(FILE_ENDINGS):
                continue
            resolved += 1
            if not any(is_public_object(f"{module}.{rest}") for module in modules[head]):
                unresolved.append(f"{place}: {name}")
    assert not unresolved
    assert resolved > 50


def is_public_object(name: str) -> bool:
    """Whether a dotted name below ``reidlib`` means something."""
    try:
        public_object(name)
    except AttributeError:
        return False
    return True


def test_other_docstrings_are_one_line_or_in_google_form():
    commands = {
        (each.__module__, each.__name__) for each in vars(reidlib.cli.commands).values() if callable(each)
    }
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if (f"reidlib.cli.{path.stem}", node.name) in commands and path.parent.name == "cli":
                    continue  # the text of its help
                docstring = ast.get_docstring(node) or ""
                if "\n" in docstring and not re.search(f"^({SECTIONS}):$", docstring, re.MULTILINE):
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}")
    assert not long
