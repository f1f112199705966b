"""Experiments on two person re-identification papers: which of their ideas help, and by how much?

The subpackages are listed in the order of the data flow. Each imports only subpackages above it in the list;
``lint-imports`` checks this. The core is models, training, ranking and reranking.

data         benchmark folders as splits (images, persons, cameras) and batches; the rules of what a query
             matches and ignores; the embedded benchmark and its renderer
models       the networks JLML (Li et al. 2017) and Pyramid (Zheng et al. 2019), one file for each paper
training     losses, dynamic balancing, the training loop, checkpoints; runs, found by their configuration
ranking      ranked lists and scores from features, the same on every device
reranking    k-reciprocal re-ranking
descriptors  hand-crafted image descriptors, without training
metric_learning  KISSME, XQDA, NFST and CRAFT: metrics learnt from features
experiments  all trainings as rows of a table; finding or training their runs; features, scores, perturbations
analysis     confidence intervals, ablations, the ledger of claims, the papers' tables; imports no torch
visual       figures, attention maps of parts, the browser of ranked lists (also ``reidlib.browser``)
search       features, ranked lists and a threshold for your own images
reports      the numbered notebooks as a report, executed several at a time
cli          the command ``reidlib``

All of them use ``errors`` (how bad input is refused), ``values`` (the types of input), ``files`` (where
generated files are kept and how they are written), ``threads`` (work in parallel), ``progress`` (progress
bars) and ``memory`` (how much is free). Messages that are not progress go to
``logging.getLogger("reidlib")``.
"""

from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Return ``files`` by the name that its functions for the locations of files had before."""
    if name == "locations":
        from reidlib import files

        return files
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
