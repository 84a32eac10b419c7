"""Classical filters: the yardstick that a network has to beat, and models in their own right.

    smoothing.py   median, gaussian, bilateral, nlm, tv
    wavelet.py     shrinkage of undecimated Haar wavelets
    paper.py       the paper behind print, divided or subtracted away
    tone.py        one polynomial a channel
    table.py       FILTERS: what there is, which parameters it has and which values are worth trying
    choosing.py    the parameters that score best on training pairs

A filter takes and returns float32 [H, W, 1 or 3] in [0, 1] of any size.
"""

from kbdenoise.imaging.classical.choosing import Chosen, check_fixed, choose
from kbdenoise.imaging.classical.table import FILTERS, Filter, Parameters, find_filter

__all__ = ["FILTERS", "Chosen", "Filter", "Parameters", "check_fixed", "choose", "find_filter"]
