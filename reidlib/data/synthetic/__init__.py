"""How a pedestrian's picture is made; ``render`` is the door to it.

``factors`` which images a benchmark holds and what varies (without torch) · ``scenes`` who stands where ·
``bodies`` capsules and the things of a street · ``looks``, ``pedestrians`` people as capsules ·
``places`` the backgrounds · ``raycasting``, ``photographs`` capsules to pixels ·
``repeatable`` numbers that are the same on every machine · ``palettes.csv`` colours and their odds
"""
