"""The renderer of the embedded benchmark; its entry point is ``render``.

``factors``: the images of a benchmark and the causes of variation (without torch). ``scenes``: positions
of people and things. ``bodies``: capsules, and things of a street. ``looks``, ``pedestrians``: people as
capsules. ``places``: backgrounds. ``raycasting``, ``photographs``: from capsules to pixels. ``repeatable``:
numbers that are the same on every machine. ``palettes.csv``: colours and their odds.
"""
