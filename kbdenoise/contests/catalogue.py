"""The contests that kbdenoise knows by name. Any other is described by its own contest.toml."""

from kbdenoise.contests.contest import Contest

CONTESTS: dict[str, Contest] = {
    "demo": Contest(
        slug="demo",
        title="Descanning demo: synthetic magazine pages, printed and scanned by simulation",
        noisy="train/scan",
        clean="train/clean",
        test="test/scan",
        truth="truth/clean",
        metric="mae-mean-luma",
        format="mean-luma",
        group_pattern=r"(.+?)(?:\.\d{2})?$",  # the page: the name minus its crop number
        terms="made by kbdenoise itself; free to use",
    ),
    "khu-descan": Contest(
        slug="khu-descan",
        title="Descanning, Kyung Hee University 2023 (Machine Learning in Practice)",
        noisy="train/scan",
        clean="train/clean",
        test="test/scan",
        metric="mae-mean-luma",
        format="mean-luma",
        group_pattern=r"(.+?)(?:\.\d{2})?$",
        max_parameters=10_000_000,
        terms="pages from Raspberry Pi Press, CC BY-NC-SA 3.0: non-commercial use only",
    ),
    "denoising-dirty-documents": Contest(
        slug="denoising-dirty-documents",
        title="Denoising Dirty Documents",
        noisy="train",
        clean="train_cleaned",
        test="test",
        channels=1,
        metric="rmse",
        format="pixels-long",
        group_by="noisyoffice-text",
        holdout=("VA",),
        url="https://www.kaggle.com/c/denoising-dirty-documents",
        terms="Kaggle competition data, from UCI NoisyOffice; competition rules apply",
    ),
}
