"""Whether L2 suffices: learnt metrics on hand-crafted descriptors and networks' features, against L2.

Loads torch, so it is imported by its own name.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.analysis.claims.verdicts import claims_of_notebook, decide, verdict_sentence
from reidlib.analysis.scores import ExperimentScores
from reidlib.analysis.statistics import Interval, format_difference, format_percent, paired
from reidlib.errors import InputError
from reidlib.experiments import metric_study
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.metric_study import L2, Features, MetricScores
from reidlib.experiments.metric_study.kept import as_metric_scores, score_run
from reidlib.experiments.setup import Runs, Setup
from reidlib.training.runs import Run

logger = logging.getLogger("reidlib")

_TITLES = {"lomo": "LOMO", "gog": "GOG", "jlml": "JLML", "pyramid": "Pyramid"}
_SETTINGS = {
    L2: ("nothing", "the squared distance"),
    "KISSME": (f"pairs across cameras, after PCA to {metric_study.COMPONENTS} components", "one matrix"),
    "XQDA": (
        "pairs across cameras; of more than two, across two halves of each person's images",
        "a subspace, and a matrix in it",
    ),
    "NFST": (
        "persons; kernel exp(−d²/2μ²)",
        "a space in which all training images of a person coincide",
    ),
    "CRAFT": (
        "neighbours, and cameras; kernel √xᵀ√y if no number is negative, else xᵀy; after PCA to "
        f"{metric_study.COMPONENTS} components",
        "a projection for each camera",
    ),
}


class ShownMetric(NamedTuple):
    """A learnt metric as the figure shows it, and a sentence about it."""

    feature: str
    part: str
    weights: np.ndarray
    signs: np.ndarray
    shares: Mapping[str, Mapping[str, float]]

    @property
    def axis(self) -> str:
        """Name the parts for the figure; only LOMO's follow each other from the top."""
        return f"{self.part}, from the top" if self.feature == _TITLES["lomo"] else self.part

    @property
    def sentence(self) -> str:
        """Say which part gains and which loses most."""
        change = {name: self.shares["XQDA"][name] - self.shares[L2][name] for name in self.shares[L2]}
        gains, loses = max(change, key=change.__getitem__), min(change, key=change.__getitem__)
        negative = int((self.signs < 0).sum())
        word = "direction" if len(self.signs) == 1 else "directions"
        taken = f"takes most from {self.part} {loses} ({_points(change[loses])})"
        return (
            f"XQDA on {self.feature} compares in {len(self.signs):,} {word}, of which {negative} subtract. "
            f"It gives most to {self.part} {gains} ({_points(change[gains])} points of the mean squared "
            f"distance) and {taken if change[loses] < 0 else 'takes from none'}."
        )


class Study(NamedTuple):
    """Scores of metrics on features.

    Attributes:
        scores: Feature -> metric -> its scores, one for each seed; descriptors have one.
        persons: Person of each query, shape (Q,).
        requested: Number of seeds of a network.
        shown: What the figure shows; None without XQDA on a feature with parts.
        refused: Feature and metric -> why it has no scores.
    """

    scores: Mapping[str, Mapping[str, Sequence[MetricScores]]]
    persons: np.ndarray
    requested: int
    shown: ShownMetric | None
    refused: Mapping[tuple[str, str], str] = MappingProxyType({})

    @classmethod
    def of(cls, setup: Setup, runs: Runs, features: Sequence[str], metrics: Sequence[str]) -> Study:
        """Compute descriptors and networks' features, learn metrics and score them.

        Features of one kind are in memory at a time.

        Args:
            setup: Profile and benchmark.
            runs: Runs of the networks among ``features``, with scores by these metrics or with weights; a
                run keeps its scores, which are computed once. Others are left out.
            features: Descriptors, and rows of ``EXPERIMENTS``.
            metrics: Names of ``metric_study.METRICS``.

        Returns:
            The study.
        """
        data, scores, shown, refused = setup.data, {}, None, {}
        for feature in dict.fromkeys(features):
            scores[feature] = {}
            if feature in metric_study.DESCRIPTORS:
                kind = metric_study.describe(data, feature, setup.execution)
                for metric, result in metric_study.score_metrics(kind, dict.fromkeys(metrics)):
                    if isinstance(result, InputError):
                        refused[feature, metric] = str(result)
                        continue
                    if metric == "XQDA" and shown is None and len(kind.parts) > 1:
                        shown = _shown(feature, kind, result)
                    # A metric on LOMO with a kernel holds all training features.
                    scores[feature][metric] = [result._replace(metric=None)]
                    del result
                del kind  # before the next one is computed
                continue
            for run in (run for run in runs.runs[feature] if isinstance(run, Run)):
                results = score_run(
                    run, data, metrics, execution=setup.execution, on_unwritable=logger.warning
                )
                if isinstance(results[L2], InputError):
                    continue
                for metric, result in results.items():
                    if isinstance(result, InputError):
                        refused[feature, metric] = str(result)
                    else:
                        scores[feature].setdefault(metric, []).append(as_metric_scores(result))
                if shown is None and "XQDA" in results and run.has_weights:
                    shown = _shown_of(setup, feature, run)
            for metric in metrics:
                if (feature, metric) in refused:  # of another seed it may have scores
                    scores[feature].pop(metric, None)
        return cls(scores, data.query.person_ids, runs.seeds, shown, refused)

    def difference(self, feature: str, metric: str) -> Interval | None:
        """Return a metric's mAP less that of L2, in points; None if a network has no runs."""
        if not (both := [self.scores[feature].get(name) for name in (metric, L2)])[0] or not both[1]:
            return None
        precisions = [np.stack([each.scores.average_precision for each in of]) for of in both if of]
        interval = paired(100 * (precisions[0] - precisions[1]), self.persons)
        requested = self.requested if feature not in metric_study.DESCRIPTORS else None
        return interval._replace(requested=requested)

    def differences(self) -> dict[str, Interval | None]:
        """Return the differences to L2, by feature and metric."""
        return {
            f"{_title(feature)}, {metric}": self.difference(feature, metric)
            for feature, of in self.scores.items()
            for metric in of
            if metric != L2
        }

    def table(self) -> pd.DataFrame:
        """Return a line for each feature and metric."""
        lines = []
        for feature, of in self.scores.items():
            if not of:
                lines.append({"feature": _title(feature), "metric": "no run with weights"})
            lines += [
                {"feature": _title(feature), "metric": f"{metric}: {why}"}
                for (of_feature, metric), why in self.refused.items()
                if of_feature == feature
            ]
            for metric, results in of.items():
                first, told = results[0], [each.notes for each in results if each.notes]
                lines.append(
                    {
                        "feature": _title(feature),
                        "metric": metric,
                        "R1": format_percent(statistics.fmean(each.scores.cmc[1] for each in results)),
                        "mAP (step)": format_percent(
                            statistics.fmean(each.scores.mean_average_precision for each in results)
                        ),
                        "mAP − L2": "baseline" if metric == L2 else self.difference(feature, metric),
                        "directions": f"{first.directions:,}",
                        "seconds to learn": f"{statistics.median(each.seconds for each in results):.1f}",
                    }
                )
                if told:
                    seeds = f" (one of {len(told)} of {len(results)} seeds)" if len(results) > 1 else ""
                    lines[-1]["told while learning"] = "; ".join(told[0]) + seeds
        return pd.DataFrame(lines).fillna("")

    def changes(self) -> list[dict[str, str]]:
        """Count the queries whose ranked list by L2 each metric changes, in the mean over seeds."""
        lines = []
        for feature, of in self.scores.items():
            for metric in [name for name in of if name != L2]:
                pairs = [
                    (after.scores, before.scores) for after, before in zip(of[metric], of[L2], strict=True)
                ]
                first_sq = np.array(
                    [
                        (after.first_match_rank == 1) * 1 - (before.first_match_rank == 1)
                        for after, before in pairs
                    ]
                )
                gains_sq = np.array(
                    [after.average_precision - before.average_precision for after, before in pairs]
                )
                counts = {
                    "first becomes right": first_sq > 0,
                    "first becomes wrong": first_sq < 0,
                    "precision rises": gains_sq > 0,
                    "precision falls": gains_sq < 0,
                }
                digits = 1 if len(pairs) > 1 else 0
                number = {name: f"{which.sum() / len(pairs):,.{digits}f}" for name, which in counts.items()}
                lines.append({"feature": _title(feature), "metric": metric} | number)
        return lines

    def headline(self) -> dict[str, str]:
        """Return the largest gain of each feature."""
        best = {}
        for feature, of in self.scores.items():
            if gains := {name: self.difference(feature, name) for name in of if name != L2}:
                name = max(gains, key=lambda each: getattr(gains[each], "mean", -np.inf))
                best[f"{_title(feature)}: largest of {len(gains)} metrics"] = f"{name} {gains[name]}"
        return best


def description_table(metrics: Sequence[str]) -> list[dict[str, str]]:
    """Return what each metric learns from, and what it learns."""
    return [
        {"metric": name, "learns from": _SETTINGS[name][0], "is": _SETTINGS[name][1]}
        for name in (L2, *dict.fromkeys(metrics))
    ]


def verdict(runs: Runs) -> tuple[str, dict[str, str]]:
    """Decide the paper's claim by the ledger's rule: a line of Markdown, and its entry of the headline."""
    (claim,) = claims_of_notebook("40_metric_learning")
    if missing := {cell.experiment for cell in claim.cells} - runs.runs.keys():
        return f"**Not decided:** {', '.join(map(_title, missing))} is not among the features.", {}
    scores = ExperimentScores(runs)
    decided = decide(claim, scores)
    return verdict_sentence(decided), {claim.name: f"{decided.outcome} ({scores.seed_count()})"}


def _shown_of(setup: Setup, feature: str, run: Run) -> ShownMetric | None:
    """Learn XQDA on a run's feature once more, for the figure alone: a run keeps scores, not metrics."""
    kind = metric_study.embed(setup.data, TrainedNetwork(run, setup.execution))
    if len(kind.parts) < 2:
        return None
    *_, (_, result) = metric_study.score_metrics(kind, ["XQDA"])
    return None if isinstance(result, InputError) else _shown(feature, kind, result)


def _shown(feature: str, kind: Features, result: MetricScores) -> ShownMetric:
    assert result.metric is not None and result.metric.weights is not None
    shares = {
        L2: metric_study.shares_of_distance(kind, None),
        "XQDA": metric_study.shares_of_distance(kind, result.metric),
    }
    part = "colours of row" if feature == "lomo" else "part"
    return ShownMetric(_title(feature), part, result.metric.weights, result.metric.signs, shares)


def _title(feature: str) -> str:
    return _TITLES.get(feature, feature)


def _points(share: float) -> str:
    return format_difference(100 * share)
