"""reidlib: which ideas of two papers help a person re-identification model, and by how much?

The rooms stand in the order of the data's way; a room imports only those before it.

data         a benchmark's folder to splits of images, persons and cameras, and those to batches; the rule of
             what a query matches and ignores; the embedded benchmark and its renderer
models       JLML (Li et al. 2017) and Pyramid (Zheng et al. 2019): a paper a file
training     losses, dynamic balancing, the one loop, checkpoints; a run, found again by its configuration
ranking      features to ranked lists and scores, the same on every device; never sees a model
reranking    (a file) lists reordered by who is near whom
descriptors  (a file) what an image says without any training
experiments  every training as a row; a run found or trained, its features, its scores, its perturbed tests
analysis     how sure a difference is; ablations, the ledger of claims, the papers' tables; loads no torch
visual       figures, maps of attention by part, the browser of ranked lists (short: ``reidlib.browser``)
search       one's own images: features, ranked lists, a threshold
reports      the numbered notebooks run headless, several at a time, into pages and an index
cli          ``reidlib COMMAND``

Below them lie ``errors`` (how bad input is refused), ``files`` (where generated files are kept, how they are
written) and ``threads`` (work ahead, work side by side). The core, the papers' networks and what trains and
scores them, is models, training, ranking and reranking. ``lint-imports`` checks the order of the rooms.
"""

__version__ = "0.1.0"
