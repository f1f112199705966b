"""How a pedestrian's picture is made.

``factors`` what varies · ``plans`` which images a benchmark holds · ``scenes`` who stands where ·
``looks``, ``pedestrians``, ``accessories``, ``props``, ``bodies`` people and things as capsules · ``places``
the backgrounds · ``raycasting``, ``shading``, ``photographs`` capsules to pixels · ``repeatable`` numbers
that are the same on every machine
"""
