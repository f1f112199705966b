"""reidlib: which ideas of two papers help a person re-identification model, and by how much?

data             benchmarks as splits of paths and ids; the rendered one; images; samplers
models           the papers' networks: JLML (Li et al. 2017), Pyramid (Zheng et al. 2019)
losses           what they are trained with, as pure functions
balancing        Pyramid's dynamic training: a state and a step's losses in, weights and a state out
execution        on what a model runs: device, precision, compilation
recipe           how long, how fast and on what batches a model is trained
training         the one loop; training_state: what it is between two steps, and its checkpoint
distributed      one training over several processes, as torchrun starts them
runs             a trained run, found again by the hash of its configuration
embedding        a model and a split to features
ranking          features to ranked lists and scores: CMC, mAP, mINP, multi-query
distances        distances that are the same on every device, and how many lie within them
descriptors      what an image says without any training: stripe colour histograms
configuration    what a run depends on, as frozen dataclasses
experiments      every training as a literal row; the profiles; a run, found or trained
evaluation       a trained run on test images: scores by branch, ranked lists
profiles         the names of the profiles, for those who need no more
complexity       parameters, operations, depth and streams of a model
plots            arrays in, figure out; model_plots: parts and training; balancing_plots
tables           scores of runs as rows: mean and spread over seeds, differences to a baseline
results          what a notebook hands to the report
reproduce        the notebooks, run headless; reporting: their processes, pages and index
locations        where generated files are kept; files: written whole; errors: how bad input is refused
"""

__version__ = "0.1.0"
