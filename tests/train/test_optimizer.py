import math

import pytest
import torch
from torch import nn

from kilter.errors import NonFiniteError
from kilter.train.optimizer import Updater, rate_at


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
