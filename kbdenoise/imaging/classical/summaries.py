"""What each classical filter is, in a line: known without importing what filters call."""

SUMMARIES: dict[str, str] = {
    "median": "median of a square around each pixel; removes specks, keeps edges",
    "gaussian": "weighted mean around each pixel; the plainest of all",
    "bilateral": "mean of pixels that are near and alike; keeps edges",
    "nlm": "non-local means: mean of pixels whose surroundings look alike",
    "tv": "least total variation: flat areas with sharp edges",
    "wavelet": "soft shrinkage of undecimated Haar wavelets",
    "background-division": "print on evenly white paper: the page divided by its own background",
    "background-subtraction": "print on evenly white paper: the page minus its own background",
    "tone-fit": "one polynomial a channel: the scanner's tone undone, noise left as it is",
}
