"""The public interface is documented in Google form; everything else by one line."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "reidlib"
# What readers of the notebooks and programs of their own call.
SECTIONS = "Args|Attributes|Returns|Yields|Raises"
PUBLIC = (
    "data.load",
    "data.readers.read",
    "data.Benchmark",
    "data.Split",
    "data.check.check",
    "data.benchmark.Protocol",
    "data.benchmark.combine",
    "data.readers.layout.Reading",
    "data.images.decode_blocks",
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
    "training.runs.Run",
    "ranking.Embeddings",
    "ranking.evaluate",
    "ranking.metrics.Scores",
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
    "experiments.features.TrainedNetwork",
    "experiments.evaluate.evaluate_run",
    "analysis.ExperimentScores",
    "analysis.ExperimentScores.difference",
    "analysis.ExperimentScores.table",
    "analysis.Cell",
    "analysis.scores.Spread",
    "analysis.statistics.Interval",
    "analysis.statistics.paired",
    "analysis.ablations.Ablation",
    "analysis.claims.Claim",
    "analysis.claims.decide",
    "analysis.claims.Verdict",
    "analysis.complexity.complexity",
    "visual.browser.RankingBrowser",
    "visual.figures.scores.difference_plot",
    "visual.attention.maps.part_attention",
    "visual.attention.pairs.AnswerPairs",
    "search.search",
    "search.verification.VerificationPairs",
    "reports.Result",
    "reports.Result.figure",
    "reports.Result.finish",
    "reports.reproduce.Plan",
    "reports.reproduce.reproduce",
    "errors.InputError",
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
    lines = re.findall(r"^    ([\w*, ]+?)(?: \([^)]*\))?:", block[1], re.MULTILINE) if block else []
    return {name.strip("* ") for line in lines for name in line.split(",")}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstring_is_in_google_form(name):
    thing = public_object(name)
    docstring = inspect.getdoc(thing)
    first = docstring.splitlines()[0]
    assert first.endswith("."), first
    assert docstring.splitlines()[1:2] in ([], [""]), "a blank line follows the summary"
    if inspect.isclass(thing):
        parameters = list(inspect.signature(thing).parameters)
        sections = documented_parameters(docstring, "Args") | documented_parameters(docstring, "Attributes")
    else:
        parameters = list(inspect.signature(thing).parameters)
        sections = documented_parameters(docstring, "Args")
        returned = inspect.signature(thing).return_annotation
        if returned not in ("None", None, inspect.Signature.empty):
            assert re.search("^(Returns|Yields):", docstring, re.MULTILINE)
    expected = {
        parameter for parameter in parameters if parameter != "self" and not parameter.startswith("_")
    }
    assert expected <= sections, expected - sections


def test_other_docstrings_are_one_line_or_in_google_form():
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path == PACKAGE / "cli" / "commands.py":  # the help texts of the commands
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                docstring = ast.get_docstring(node) or ""
                if "\n" in docstring and not re.search(f"^({SECTIONS}):$", docstring, re.MULTILINE):
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}")
    assert not long
