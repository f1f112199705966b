"""Readers of public layouts, one module a layout: a folder in, a ``Benchmark`` out.

Each module also has a ``survey``: what ``reidlib.data.check`` compares with what belongs there.
"""
