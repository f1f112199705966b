"""Training of a network to a run: a folder of weights and records, named by its configuration's hash.

``config`` a run's configuration · ``losses`` losses and objectives · ``dynamic`` balancing of Pyramid's two
losses · ``loop`` the training loop · ``checkpoint`` saved state · ``device`` device and precision ·
``distributed`` several processes · ``runs`` a run's folder, loaded or trained

``config``, ``dynamic`` and ``runs`` load no torch.
"""
