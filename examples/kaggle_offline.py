# %% [markdown]
# # Submit to a code competition, without Internet
#
# A notebook for Kaggle's offline competitions. Attach to it, besides the competition's own data:
#
# * a dataset with the wheels of kbdenoise (`pip wheel --no-deps -w wheels .` in its folder)
#   and of what it needs that the image lacks (`pip download --no-deps -d wheels NAME`, where
#   there is Internet), here called `kbdenoise-wheels`;
# * a dataset with a run's folder, as `kbdenoise train` left it in `runs/`, here called `my-run`.
#
# Nothing below touches the network, and Kaggle's client is not needed.

# %%
# !pip install --quiet --no-index --find-links /kaggle/input/kbdenoise-wheels kbdenoise

# %%
import kbdenoise
from kbdenoise.contests.hosted import kaggle_root

CONTEST = "khu-descan"
INPUT = kaggle_root() / "input"  # /kaggle/input
run = next(INPUT.glob("my-run/**/run.json")).parent

# %% [markdown]
# The pictures stay where Kaggle has mounted them; only their description is written, to `data/`.

# %%
fetched = kbdenoise.fetch(CONTEST)
print(f"{fetched.tests} test pictures in {fetched.contest.root}")

# %% [markdown]
# Restore the test pictures, write what the contest wants, read it back and check it. In a notebook
# of Kaggle's the file is `/kaggle/working/submission.csv`, where the competition looks for it.

# %%
submission = kbdenoise.submit(str(run), name=CONTEST, message="offline")
print(f"{submission.path}: {submission.rows} rows, mean {submission.mean:.1f}")

# %% [markdown]
# Now save the notebook, let it run, and choose *Submit* on its page.
