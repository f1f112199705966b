"""How notebooks become a report: executed in processes of their own, then pages and an index.

``notebook`` one notebook read and executed · ``work`` what there is to do and where · ``processes`` a piece
of it in a process of its own · ``session`` all of it, in order or at once · ``display`` the lines on the
terminal · ``page`` a notebook's page · ``report`` the index and the summary · ``style`` their look
"""
