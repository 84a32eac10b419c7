import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdenoise.errors import SettingsError
from kbdenoise.loss_terms import ADVERSARIAL, LOSS_TERMS, Term, parse_loss


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("psnr", [(1, "psnr")]),
        ("  l1 ", [(1, "l1")]),
        ("l1 + 0.5*mean-luma", [(1, "l1"), (0.5, "mean-luma")]),
        ("l1+.5*mean-luma", [(1, "l1"), (0.5, "mean-luma")]),
        ("mean-luma * 0.5 + 2. * l1", [(0.5, "mean-luma"), (2, "l1")]),
        ("1e-2*fft+1E+1*ssim", [(0.01, "fft"), (10, "ssim")]),
        ("fft*1e+2\n+ ms-ssim", [(100, "fft"), (1, "ms-ssim")]),
        ("adversarial + 100*l1", [(1, "adversarial"), (100, "l1")]),
    ],
)
def test_a_loss_is_a_sum_of_weighted_names(text: str, terms: list[tuple[float, str]]) -> None:
    assert parse_loss(text) == tuple(Term(weight, name) for weight, name in terms)


@given(st.dictionaries(st.sampled_from(sorted(LOSS_TERMS)), st.floats(1e-9, 1e9), min_size=1))
def test_any_sum_is_read_back_as_it_was_written(weights: dict[str, float]) -> None:
    if weights.keys() == {ADVERSARIAL}:
        weights["l1"] = 1.0

    terms = parse_loss(" + ".join(f"{weight!r}*{name}" for name, weight in weights.items()))

    assert {term.name: term.weight for term in terms} == weights


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "--loss is empty", "such as 'l1 + 0.5*mean-luma"),
        (" ", "--loss is empty", "write a name"),
        ("L1", "no loss is called 'L1'", "did you mean 'l1'?"),
        ("Mean_Luma", "no loss is called 'Mean_Luma'", "did you mean 'mean-luma'?"),
        ("xyz", "--loss 'xyz': no loss is called 'xyz'", "choose one of: adversarial, charb"),
        ("l1 + 2*l1", "--loss 'l1 + 2*l1' names l1 twice", "once"),
        ("0*l1", "the weight 0 of l1 is not a number from 1e-09 to 1e+09", "positive"),
        ("l1*-0.5", "the weight -0.5 of l1", "positive"),
        ("nan*l1", "the weight nan of l1", "positive"),
        ("inf*l1", "the weight inf of l1", "positive"),
        ("1e-300*l1", "the weight 1e-300 of l1", "positive"),
        ("l1 +", "cannot be read at ''", "write a name"),
        ("+ l1", "cannot be read at ''", "write a name"),
        ("l1 - fft", "cannot be read at 'l1 - fft'", "write a name"),
        ("-l1", "cannot be read at '-l1'", "write a name"),
        ("2", "--loss '2' cannot be read at '2'", "write a name"),
        ("mse + l1*fft", "cannot be read at 'l1*fft'", "write a name"),
        ("2*3*l1", "cannot be read at '2*3*l1'", "write a name"),
        ("0,5*l1", "cannot be read at '0,5*l1'", "write a name"),
        ("0.5 l1", "cannot be read at '0.5 l1'", "write a name"),
        ("2l1", "cannot be read at '2l1'", "write a name"),
        ("l1**2", "cannot be read at 'l1**2'", "write a name"),
        ("l1 mse", "cannot be read at 'l1 mse'", "write a name"),
        ("2*adversarial", "does not compare with the clean picture", "adversarial + 100*l1"),
    ],
)
def test_what_is_no_loss_is_refused_with_the_way_to_write_one(
    text: str, message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_loss(text)

    assert caught.value.message.startswith("--loss")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_losses_are_read_without_torch() -> None:
    program = "import sys, kbdenoise.loss_terms, kbdenoise.config; print('torch' in sys.modules)"

    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert answer.stdout == "False\n"
