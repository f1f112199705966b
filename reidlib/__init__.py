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
protocols        single-shot and multi-shot scores: one entry for each person, drawn or averaged
reranking        lists reordered by who is near whom (neighbours); distance_scores: any matrix scored
distances        distances that are the same on every device, and how many lie within them
descriptors      what an image says without any training: stripe colour histograms
configuration    what a run depends on, as frozen dataclasses
sizes            how large a run is, profile by profile
experiments      every training as a literal row; a run, found or trained; chains of runs
evaluation       a trained run on test images: scores by branch, single and multi-query; ranked lists
conditions       the same under worse boxes or more occlusion; misalignment: what that costs
profiles         the names of the profiles, for those who need no more
complexity       parameters, operations, depth and streams of a model
feature_selection  which input units JLML's sparsity switches off
published        the papers' numbers as printed, and one reader for them
intervals        how sure a difference is, over seeds and queries
tables           scores of runs as rows: mean and interval over seeds, paired differences
evidence         the runs behind a comparison, with missing ones marked
ablations        the papers' tables of ablations: rows, baselines, what is printed
comparisons      this suite's rows in the papers' tables (comparison_tables, table_folders)
protocol_study   what the protocol alone does to a score
feature_files    features of any number of images, streamed to disk; distractor_scores: half a million more
feature_sets     features of own images with their names
verification     same or different person, and from what distance on
search           own images ranked (nearest), the lists and the sheet (search_report, search_plots)
collection       a run's features of a benchmark; ranking_views: one query's list, explained (ranking_figures)
browser          the ranking browser of ipywidgets (browser_cards, _comparison, _controls, _saving, _source)
attention        what supports the similarity of two images, part by part (attention_pairs, attention_plots)
deletion         do such maps mean anything: blank them, and something at random (deletion_tables, _plots)
claims           the ledger: each claim, the test that decides it, the verdict
plots            arrays in, figure out; model_plots, balancing_plots, evidence_plots, benchmark_plots
results          what a notebook hands to the report
trainings        one training of a sweep in a process of its own
sweeps           which trainings the notebooks want, as work for several processes
commands         what each command of the command line does
reproduce        the notebooks, run headless; reporting: their processes, pages and index
cluster          the workers of a Dask cluster, where notebooks and trainings can run
locations        where generated files are kept; files: written whole; errors: how bad input is refused
threads          work side by side in threads that do not wait for each other
"""

__version__ = "0.1.0"
