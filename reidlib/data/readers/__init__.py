"""Readers of layouts: a folder in, a ``Reading`` out, for loading it and for checking it.

``layout`` the reading and what all share · ``market`` Market-1501's layout, rendered folders too ·
``two_view`` the small sets · ``partitions`` who is tested there · ``cuhk03`` ·
``own`` images.
"""
