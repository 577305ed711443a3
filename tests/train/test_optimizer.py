import math
import sys

import pytest
import torch
from torch import nn

from kilter.errors import ConfigError, NonFiniteError
from kilter.train.checkpoint import flattened, unflattened
from kilter.train.optimizer import OPTIMIZERS, Updater, rate_at, rounded_stochastically


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.scale = nn.Parameter(torch.tensor([1.0, 1.0]))


def updater(model, **settings):
    return Updater(model, **({"learning_rate": 0.1, "weight_decay": 0.0, "max_grad_norm": 1.0} | settings))


def test_the_first_step_of_adamw_moves_each_weight_by_the_learning_rate():
    model = Two()
    model.matrix.grad, model.scale.grad = torch.tensor([[1.0, -2.0], [3.0, -4.0]]), torch.tensor([1.0, -1.0])
    norm = updater(model, max_grad_norm=100.0).step()
    assert norm == pytest.approx(math.sqrt(1 + 4 + 9 + 16 + 1 + 1))
    torch.testing.assert_close(model.matrix.detach(), torch.tensor([[0.9, 2.1], [2.9, 4.1]]))
    assert model.matrix.grad is None


def test_weight_decay_shrinks_matrices_and_leaves_scales_alone():
    model = Two()
    model.matrix.grad, model.scale.grad = torch.zeros(2, 2), torch.zeros(2)
    updater(model, weight_decay=0.5).step()
    torch.testing.assert_close(model.matrix.detach(), torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * (1 - 0.1 * 0.5))
    torch.testing.assert_close(model.scale.detach(), torch.ones(2))


def test_clipping_scales_the_gradient_but_reports_its_norm_before():
    clipped, plain = Two(), Two()
    for model, size in ((clipped, 30.0), (plain, 1.0)):
        model.matrix.grad, model.scale.grad = torch.full((2, 2), size), torch.zeros(2)
    first = updater(clipped, max_grad_norm=2.0)
    assert first.step() == pytest.approx(60.0)
    second = updater(plain, max_grad_norm=2.0)
    assert second.step() == pytest.approx(2.0)
    for name in ("exp_avg", "exp_avg_sq"):
        ours, theirs = (o.optimizer.state[m.matrix][name] for o, m in ((first, clipped), (second, plain)))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_updates_nothing(bad):
    model = Two()
    before = model.matrix.detach().clone()
    model.matrix.grad, model.scale.grad = torch.full((2, 2), bad), torch.zeros(2)
    with pytest.raises(NonFiniteError, match=r"norm is (nan|inf)"):
        updater(model).step()
    assert torch.equal(model.matrix.detach(), before)


def test_the_rate_climbs_and_then_falls_to_nearly_nothing():
    linear = [rate_at(step, 10, schedule="linear", warmup=0.2) for step in range(10)]
    assert linear == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = [rate_at(step, 4, schedule="cosine", warmup=0.0) for step in range(4)]
    assert cosine == pytest.approx([1.0, 0.5 + 0.25 * math.sqrt(2), 0.5, 0.5 - 0.25 * math.sqrt(2)])
    assert {rate_at(step, 5, schedule="constant", warmup=0.0) for step in range(5)} == {1.0}


class Wide(nn.Module):
    """Weights far larger than their updates."""

    def __init__(self, dtype):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(64, 256, dtype=dtype))


def test_bfloat16_weights_take_in_updates_far_below_their_spacing_on_average():
    """100 steps of 1e-4 each, where the spacing of bfloat16 below 1 is 0.0039: rounded to nearest, none would count."""
    torch.manual_seed(0)
    model = Wide(torch.bfloat16)
    ours = updater(model, learning_rate=1e-4)
    for step in range(100):
        model.matrix.grad = torch.ones_like(model.matrix)
        ours.step(step=step)
    assert model.matrix.dtype == torch.bfloat16
    values = model.matrix.detach().float()
    standard_error = float(values.std()) / math.sqrt(values.numel())
    assert abs(float(values.mean()) - 0.99) < 4 * standard_error
    assert standard_error < 1e-4
    assert all(value.dtype == torch.float32 for state in ours.state().values() for value in state.values())


def test_stochastic_rounding_goes_to_the_neighbours_with_the_right_chances():
    torch.manual_seed(0)
    low, high = 1.0, 1.0078125  # neighbours in bfloat16
    for share in (0.0, 0.25, 0.9):
        x = torch.full((200_000,), low + share * (high - low))
        rounded = rounded_stochastically(x).float()
        assert set(rounded.unique().tolist()) <= {low, high}
        assert float((rounded == high).float().mean()) == pytest.approx(share, abs=0.005)
    negative = rounded_stochastically(torch.full((1000,), -(low + 0.5 * (high - low)))).float()
    assert set(negative.unique().tolist()) == {-low, -high}


def test_gradient_noise_has_the_variance_asked_for_and_fades():
    """The moments of the first step are (1 - beta) times what the optimiser was given."""
    torch.manual_seed(0)
    for step in (0, 99):
        model = Wide(torch.float32)
        ours = updater(model, gradient_noise=0.3)
        model.matrix.grad = torch.zeros_like(model.matrix)
        ours.step(step=step)
        given = ours.optimizer.state[model.matrix]["exp_avg"] / 0.1
        assert float(given.var()) == pytest.approx(0.3 / (1 + step) ** 0.55, rel=0.05)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_goes_downhill_and_its_state_can_be_taken_up(name):
    if name == "adamw8bit":
        pytest.importorskip("bitsandbytes")

    def descend(model, ours, steps):
        for _ in range(steps):
            (model.matrix**2).sum().backward()
            ours.step()

    torch.manual_seed(0)
    start = torch.randn(64, 256)
    whole, cut = Wide(torch.float32), Wide(torch.float32)
    for model in (whole, cut):
        model.matrix.data.copy_(start)
    first = updater(whole, optimizer=name, learning_rate=0.01)
    descend(whole, first, 6)
    assert float(whole.matrix.detach().norm()) < 0.99 * float(start.norm())
    descend(cut, before := updater(cut, optimizer=name, learning_rate=0.01), 3)
    tensors, plain = flattened({"optimizer": before.state()})
    after = updater(cut, optimizer=name, learning_rate=0.01)
    after.load_state(unflattened(tensors, plain)["optimizer"])
    descend(cut, after, 3)
    assert torch.equal(cut.matrix, whole.matrix)


def test_an_optimiser_that_is_not_installed_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        updater(Two(), optimizer="adamw8bit")
