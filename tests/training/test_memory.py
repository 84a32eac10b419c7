"""Memory of training: planned, divided into pieces, checkpointed, and running out on the way."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.batches import Batch
from kbdenoise.devices import choose_device
from kbdenoise.errors import DataError, NoMemoryError, SettingsError
from kbdenoise.loss_terms import ADVERSARIAL, LOSS_TERMS
from kbdenoise.models.blank import on_meta
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.memory import Criterion, training_memory
from kbdenoise.models.patchgan import PatchGAN
from kbdenoise.models.zoo import MODELS
from kbdenoise.progress import Event, Note, silent
from kbdenoise.resolving import resolve
from kbdenoise.runs.folder import Run
from kbdenoise.team import ALONE, Team
from kbdenoise.training import memory, step
from kbdenoise.training.adversary import Adversary
from kbdenoise.training.criterion import criterion_on_meta
from kbdenoise.training.memory import MemoryPlan, Needs, checkpoint_blocks, cropped_more, plan_stage
from kbdenoise.training.objective import Objective, make_objective
from kbdenoise.training.prepare import gather, new_session
from kbdenoise.training.state import read_state
from kbdenoise.training.train import train
from tests.training.test_train import assert_equal_weights, stop_at

TINY: dict[str, Any] = {
    "model": "unet",
    "width": 4,
    "hyper": "levels=1 convs=1",
    "patch": 16,
    "batch": 6,
    "steps": 8,
    "val_every": 8,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
    "precision": "fp32",
}

CPU = choose_device("cpu")
L1 = make_objective("l1", channels=3, patch=16)

# Small hyper-parameters of every network, with a norm or dropout where there is one to choose.
SMALL: dict[str, dict[str, Any]] = {
    "kbnet-s": {"width": 4, "encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)},
    "kbnet-l": {"width": 4, "blocks": (1, 1, 1, 1), "refinement_blocks": 1},
    "nafnet": {"width": 4, "encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)},
    "restormer": {"width": 4, "blocks": (1, 1, 1, 1), "refinement_blocks": 1},
    "dncnn": {"width": 4, "depth": 9},
    "srresnet": {"width": 4, "blocks": 2},
    "res-unet": {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,)},
    "unet": {"width": 4, "levels": 2, "norm": "batch"},
    "drunet": {"width": 4, "blocks": 1},
    "pix2pix": {"width": 4, "levels": 3},
    "tone": {"width": 4},
}


def plan(
    free: float,
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: MemoryPlan | None = None,
    **changes: Any,
) -> MemoryPlan:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: free)
    config = resolve(TrainConfig(), ("test", TINY | changes))
    info = describe_model("unet", channels=3, width=16)
    needs = Needs.of(info, config, L1, CPU)
    return plan_stage(needs, config.stages[0], page=500, before=before)


def needed(batch: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> float:
    return plan(1e12, monkeypatch, batch=batch, **changes).needed_bytes


def test_a_batch_that_fits_goes_at_once_and_a_larger_one_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enough = needed(4, monkeypatch, patch=64) / 0.85

    assert plan(1.01 * enough, monkeypatch, patch=64, batch=4).pieces == 1
    assert plan(1.01 * enough, monkeypatch, patch=64, batch=5).pieces == 2
    assert plan(1.01 * enough, monkeypatch, patch=64, batch=16).pieces == 4
    assert plan(1.01 * enough, monkeypatch, patch=64, batch=17).pieces == 5


def test_an_automatic_batch_is_the_largest_power_of_two_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enough = needed(8, monkeypatch, patch=64) / 0.85

    assert plan(1.01 * enough, monkeypatch, patch=64, batch="auto").batch == 8
    assert plan(0.99 * enough, monkeypatch, patch=64, batch="auto").batch == 4
    assert plan(1e12, monkeypatch, patch=64, batch="auto").batch == 64
    assert plan(1e12, monkeypatch, patch=64, batch="auto").pieces == 1


def test_a_patch_that_does_not_fit_is_refused_before_anything_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NoMemoryError, match="one patch of 64 px takes about") as caught:
        plan(2**20, monkeypatch, patch=64)

    assert "--checkpointing" in caught.value.hint
    assert plan(2**20, monkeypatch, patch=64, accumulate=3).pieces == 3


def test_pages_are_cropped_to_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = plan(1e12, monkeypatch, stages="pagex2:100%").needed_bytes / 0.85

    assert plan(1.01 * enough, monkeypatch, stages="pagex2:100%").largest == 0
    assert plan(0.99 * enough, monkeypatch, stages="pagex2:100%").pieces == 2
    small = plan(0.3 * enough, monkeypatch, stages="pagex2:100%")
    assert 300 < small.largest < 400 and small.largest % 8 == 0
    assert "cropped to" in small.text


def test_a_run_that_goes_on_keeps_its_pages_and_its_pieces_where_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = {"stages": "pagex2:100%"}
    enough = plan(1e12, monkeypatch, **pages).needed_bytes / 0.85
    begun = plan(0.3 * enough, monkeypatch, **pages)

    more = plan(1e12, monkeypatch, before=begun, **pages)
    hardly_less = plan(0.28 * enough, monkeypatch, before=begun, **pages)
    less = plan(0.15 * enough, monkeypatch, before=begun, **pages)
    divided = plan(1e12, monkeypatch, before=begun, accumulate=1, **pages)

    assert (more.largest, more.pieces) == (begun.largest, begun.pieces) == (begun.side, 2)
    assert (hardly_less.largest, hardly_less.pieces) == (begun.largest, 2)
    assert 0 < less.largest < begun.largest
    assert (divided.largest, divided.pieces) == (begun.largest, 1)
    assert f"larger than {less.side} px are now cropped" in cropped_more([less], [begun])
    assert not cropped_more([more, hardly_less], [begun, begun])


STAGES = {"stages": "16x6:50% pagex2:50%", "val_every": 2}


def with_memory(monkeypatch: pytest.MonkeyPatch, *, pixels: float) -> None:
    """So much is free that this many pixels fit at once."""
    monkeypatch.setattr(Needs, "pixels", lambda self, usable: pixels)


@pytest.mark.parametrize("stop", [2, 6])
def test_a_run_resumed_with_more_memory_gives_the_same_weights(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    with_memory(monkeypatch, pixels=2.5 * 16**2)
    whole = train(contest.folder, runs=tmp_path / "whole", **(TINY | STAGES))
    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(stop), **(TINY | STAGES))

    with_memory(monkeypatch, pixels=1e9)
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)
    plain = train(contest.folder, runs=tmp_path / "plain", **(TINY | STAGES))
    with pytest.raises(AssertionError):
        assert_equal_weights(whole.run, plain.run)


def test_a_run_resumed_with_less_memory_tells_that_its_pages_are_cropped(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    train(contest.folder, runs=tmp_path, progress=stop_at(6), **(TINY | STAGES))

    with_memory(monkeypatch, pixels=25**2)
    train(resume="last", runs=tmp_path, progress=events.append)

    told = [e.text for e in events if isinstance(e, Note) and "less memory" in e.text]
    assert len(told) == 1 and "larger than 24 px are now cropped" in told[0]


@pytest.mark.parametrize(("given", "pieces"), [({}, 4), ({"accumulate": 3}, 3)])
def test_pieces_that_memory_has_asked_for_are_kept_on_resuming(
    contest: LocalContest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    pieces: int,
) -> None:
    changes = TINY | {"val_every": 4}
    with monkeypatch.context() as patch:
        running_out(patch, from_step=2, most=2)
        train(contest.folder, runs=tmp_path, progress=stop_at(4), accumulate=2, **changes)

    resumed = train(resume="last", runs=tmp_path, **given)

    assert read_state(resumed.run / "state.pt")["now"]["pieces"] == pieces


def kept_by_the_loss(objective: Objective, config: TrainConfig, side: int) -> int:
    """Bytes that a real loss of two patches keeps for its backward pass, weights left out."""
    noisy, restored, clean = torch.rand(3, 2, 3, side, side).unbind()
    restored.requires_grad_()
    own = {noisy.untyped_storage().data_ptr()}
    own |= {
        t.data_ptr() for f in objective.losses.values() for t in getattr(f, "parameters", list)()
    }
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other gets its address
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = objective(restored, clean)
        if objective.adversarial_weight:
            fp32 = choose_device("cpu", precision="fp32")
            adversary = Adversary(config, channels=3, device=fp32, team=ALONE)
            own |= {p.untyped_storage().data_ptr() for p in adversary.critic.parameters()}
            losses = losses + adversary.judged(noisy, restored)
    assert losses.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("loss", [*LOSS_TERMS])
def test_what_the_loss_keeps_is_counted(loss: str, vgg: Path) -> None:
    text = f"l1 + {loss}" if loss == ADVERSARIAL else loss
    changes = TINY | {"loss": text, "patch": 48, "adversary_width": 64}
    config = resolve(TrainConfig(), ("test", changes))
    objective = make_objective(text, channels=3, patch=48, perceptual_weights=str(vgg))
    criterion = criterion_on_meta(objective, config, channels=3, amp=False)

    def kept(criterion: Criterion) -> int:
        with on_meta():
            model = nn.Conv2d(3, 3, 1)
        return training_memory(
            model, channels=3, patch=48, batch=2, amp=False, criterion=criterion
        ).kept_bytes

    nothing = Criterion(loss=lambda noisy, restored, clean: restored.sum())
    patches = 2 * 3 * 48**2 * 4
    assert kept(criterion) - kept(nothing) == pytest.approx(
        kept_by_the_loss(objective, config, 48), abs=2 * patches, rel=0.02
    )


def test_networks_that_judge_are_planned_for(monkeypatch: pytest.MonkeyPatch, vgg: Path) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: 1e12)
    info = describe_model("unet", channels=3, width=4, levels=1)

    def needs(text: str) -> Needs:
        config = resolve(TrainConfig(), ("test", TINY | {"loss": text, "stages": "pagex2:100%"}))
        objective = make_objective(text, channels=3, patch=64, perceptual_weights=str(vgg))
        return Needs.of(info, config, objective, CPU)

    plain, judged, seen = needs("l1"), needs("l1 + adversarial"), needs("perceptual")

    critic = sum(p.numel() for p in PatchGAN(norm="instance").parameters())
    weights = sum(t.numel() for t in torch.load(vgg).values())
    assert judged.fixed_bytes - plain.fixed_bytes == pytest.approx(16 * critic, rel=0.3)
    assert seen.fixed_bytes - plain.fixed_bytes == pytest.approx(4 * weights, rel=0.3)
    assert judged.bytes_per_pixel > 1.5 * plain.bytes_per_pixel
    assert seen.bytes_per_pixel > 3 * plain.bytes_per_pixel


def test_the_plan_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = plan(2**33, monkeypatch, batch=16, accumulate=4).text

    assert "of 8 GiB free" in text and "16 x 16 px in 4 pieces" in text


def test_an_automatic_batch_is_written_into_the_run(contest: LocalContest, tmp_path: Path) -> None:
    result = train(contest.folder, runs=tmp_path / "runs", **(TINY | {"batch": "auto"}))

    assert "batch = 64" in (result.run / "config.toml").read_text()


@pytest.mark.parametrize("loss", ["psnr", "l1 + 0.5*mean-luma", "ssim"])
def test_pieces_give_the_weights_of_the_whole_batch(
    contest: LocalContest, tmp_path: Path, loss: str
) -> None:
    runs = [
        train(contest.folder, runs=tmp_path / str(n), loss=loss, accumulate=n, **TINY).run
        for n in (1, 4)
    ]

    one, other = (safetensors.torch.load_file(run / "last.safetensors") for run in runs)
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-5), name
    moved = safetensors.torch.load_file(
        train(contest.folder, runs=tmp_path / "far", loss=loss, **(TINY | {"steps": 7})).run
        / "last.safetensors"
    )
    assert any(not torch.allclose(one[name], moved[name], atol=1e-5) for name in one)


@pytest.mark.parametrize("name", [*MODELS, "tone+dncnn"])
def test_checkpointing_changes_no_gradient_no_statistic_and_no_chance(name: str) -> None:
    hyper = SMALL[name.removeprefix("tone+")]
    channels = 3
    torch.manual_seed(1)
    plain = build_model(name, channels=channels, **hyper).train()
    torch.manual_seed(2)
    for tensor in (*plain.parameters(), *plain.buffers()):
        if tensor.is_floating_point():
            tensor.data.add_(0.1 * torch.rand_like(tensor))
    other = build_model(name, channels=channels, **hyper).train()
    other.load_state_dict(plain.state_dict())
    checkpoint_blocks(other)
    noisy = torch.rand(2, channels, 32, 32)

    found = []
    for model in (plain, other):
        torch.manual_seed(3)
        restored = model(noisy)
        (restored - 0.5).square().mean().backward()
        found.append((restored, {n: p.grad for n, p in model.named_parameters()}, model))

    (a, grads_a, _), (b, grads_b, _) = found
    assert torch.equal(a, b)
    for key in grads_a:
        assert grads_a[key] is not None and torch.equal(grads_a[key], grads_b[key]), key
    for (key, one), (_, two) in zip(plain.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(one, two), key


@pytest.mark.parametrize("name", MODELS)
def test_checkpointing_keeps_fewer_activations(name: str) -> None:
    if name == "tone":
        pytest.skip("its one block is nearly all of it")
    kept = []
    for checkpointing in (False, True):
        model = build_model(name, channels=3, **SMALL[name]).train()
        if checkpointing:
            checkpoint_blocks(model)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            if not isinstance(tensor, nn.Parameter):
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.rand(1, 3, 32, 32))
        kept.append(sum(sizes))

    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpointed_run_gives_the_weights_of_a_plain_one(
    precision: str, contest: LocalContest, tmp_path: Path
) -> None:
    settings = TINY | {"precision": precision}
    runs = [
        train(contest.folder, runs=tmp_path / str(on), checkpointing=on, **settings).run
        for on in (False, True)
    ]

    one, other = (safetensors.torch.load_file(run / "last.safetensors") for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


def running_out(monkeypatch: pytest.MonkeyPatch, *, from_step: int, most: int) -> None:
    """From a step on, pieces of more than `most` patches do not fit."""
    piece = step._piece

    def limited(session: Any, part: Any, *, last: bool) -> torch.Tensor:
        if session.now.step >= from_step and len(part.noisy) > most:
            piece(session, part, last=last)  # some of it is done already
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")
        return piece(session, part, last=last)

    monkeypatch.setattr(step, "_piece", limited)


def test_memory_that_runs_out_on_the_way_halves_the_pieces_and_the_run_goes_on(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(contest.folder, runs=tmp_path / "whole", **TINY)
    events: list[Event] = []
    running_out(monkeypatch, from_step=3, most=2)

    result = train(contest.folder, runs=tmp_path / "cut", progress=events.append, **TINY)

    told = [e.text for e in events if isinstance(e, Note) and "memory ran out" in e.text]
    assert [text.split()[-2] for text in told] == ["2", "4"]
    assert result.steps == 8
    one, other = (safetensors.torch.load_file(r.run / "last.safetensors") for r in (whole, result))
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-5), name


def test_a_single_patch_too_much_ends_with_a_cure(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_out(monkeypatch, from_step=2, most=0)

    with pytest.raises(DataError, match="does not fit into the memory") as caught:
        train(contest.folder, runs=tmp_path / "runs", **TINY)

    assert "--checkpointing" in caught.value.hint


class Pair(Team):
    """Two processes, of which the other one has half as much memory free."""

    def gather(self, mine: Any) -> list[Any]:
        return [mine, mine / 2]

    def told(self, value: Any) -> Any:
        return value


def test_processes_plan_alike_with_the_least_that_one_of_them_has_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: 1e9)
    info = describe_model("unet", channels=3, width=16)

    config = resolve(TrainConfig(), ("test", TINY))
    needs = Needs.of(info, config, L1, CPU, team=Pair(size=2))

    assert needs.processes == 2
    assert needs.free_bytes == 1e9 / 2 / 2  # the other one's, and half of that on one machine


UNEVEN = TINY | {"hyper": "levels=1 convs=1 norm=batch", "batch": 5, "accumulate": 3}


def test_pieces_that_would_let_batch_norms_wait_for_ever_are_refused(
    contest: LocalContest,
) -> None:
    """Three pieces of three patches here, two of two there."""
    config = resolve(TrainConfig(), ("test", UNEVEN))

    with pytest.raises(SettingsError, match="of 5 on 2 processes cannot be taken in 3") as caught:
        gather(contest, config, CPU, silent, team=Pair(size=2))

    assert "--accumulate 2, a --batch that is a multiple of 2" in caught.value.hint
    without = resolve(config, ("test", {"hyper": "levels=1 convs=1"}))
    assert gather(contest, without, CPU, silent, team=Pair(size=2)).plans[0].pieces == 3


def test_processes_with_batch_norms_take_equally_many_pieces_whatever_a_run_had_before(
    contest: LocalContest, tmp_path: Path
) -> None:
    config = resolve(TrainConfig(), ("test", UNEVEN))
    session = new_session(Run(path=tmp_path), gather(contest, config, CPU, silent))
    ranks: list[int] = []
    session.model.register_forward_hook(lambda *_: ranks.append(session.team.rank))
    whole = next(session.batches())

    for rank in (0, 1):
        session.team = Team(rank=rank, size=2)
        share = Batch(*(None if part is None else part[rank::2] for part in whole))
        step._gradients(session, share)

    assert session.now.pieces == 3
    assert ranks == [0, 0, 1, 1]


def test_pieces_are_told_where_batch_norms_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: 1e12)
    texts = {}
    for model, accumulate in (("dncnn", 2), ("dncnn", 1), ("unet", 2)):
        config = resolve(TrainConfig(), ("test", TINY | {"accumulate": accumulate}))
        needs = Needs.of(describe_model(model, channels=3, **SMALL[model]), config, L1, CPU)
        texts[model, accumulate] = plan_stage(needs, config.stages[0], page=500).text

    told = {key for key, text in texts.items() if "batch norms see one at a time" in text}
    norms = {m for m in ("dncnn", "unet") if any(isinstance(x, _BatchNorm) for x in small(m))}
    assert told == {(model, 2) for model in norms} and norms


def small(name: str) -> list[nn.Module]:
    return list(build_model(name, channels=3, **SMALL[name]).modules())
