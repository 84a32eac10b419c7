"""Classical filters: the yardstick that a network has to beat, and models in their own right.

    smoothing.py   median, gaussian, bilateral, nlm, tv
    wavelet.py     shrinkage of undecimated Haar wavelets
    paper.py       the paper behind print, divided or subtracted away
    tone.py        one polynomial a channel
    summaries.py   their names, and what each is in a line; imports nothing
    table.py       FILTERS: what there is, which parameters it has and which values are worth trying
    choosing.py    the parameters that score best on training pairs

A filter takes and returns float32 [H, W, 1 or 3] in [0, 1] of any size.
"""
