"""A network and images to a run: trained weights in a folder that its configuration's hash names.

``config`` what a run depends on · ``losses`` what is minimised · ``dynamic`` how Pyramid's two losses are
balanced · ``loop`` the one training loop · ``checkpoint`` what it goes on from · ``device`` on what it runs ·
``distributed`` several processes as one · ``runs`` a run, found again or trained

``config``, ``dynamic`` and ``runs`` load no torch.
"""
