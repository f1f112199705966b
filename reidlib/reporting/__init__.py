"""How notebooks become a report: executed in processes of their own, then pages and an index.

``notebook`` one notebook read and executed · ``session`` many of them, in order or at once · ``display``
the lines on the terminal · ``page`` a notebook's page · ``report`` the index and the summary · ``style``
their look
"""
