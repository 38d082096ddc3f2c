"""How many chips fit is known before training begins."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from training_runs import make_module

from geoseg.errors import TrainingError
from geoseg.training import memory
from geoseg.training.memory import activation_bytes, check_memory


def test_what_backward_needs_is_counted_once_and_without_parameters() -> None:
    layer = nn.Linear(100, 50, bias=False)
    given = torch.zeros(8, 100, requires_grad=True)

    def forward() -> torch.Tensor:
        hidden = layer(given)  # keeps its input and its weight
        # Both keep what they gave, and the product keeps it again.
        product: torch.Tensor = hidden.sigmoid() * hidden.sigmoid()
        return product

    assert activation_bytes(layer, forward) == 4 * (8 * 100 + 2 * 8 * 50)


@pytest.mark.parametrize("share", [0.55, 0.05])
def test_chips_that_do_not_fit_are_refused_with_the_number_that_does(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    module = make_module(batch_size=16, final_batch_size=2, final_share=0.25)
    each = memory.MARGIN * activation_bytes(module, lambda: module.probe(48))
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    states = 16 * trained
    monkeypatch.setattr(memory, "_free_bytes", lambda *, cuda: states + 16.5 * each)
    check_memory(module, cuda=False)
    free = states + share * 16 * each
    monkeypatch.setattr(memory, "_free_bytes", lambda *, cuda: free)
    with pytest.raises(TrainingError) as refused:
        check_memory(module, cuda=False)
    message = str(refused.value)
    if share > 0.5:
        assert re.search(
            r"16 chips of 48 pixels .*: 8 fit; .*micro_batch_size=8", message
        )
        again = make_module(batch_size=16, final_batch_size=2, micro_batch_size=8)
        check_memory(again, cuda=False)
    else:
        assert "not one fits" in message


def test_looking_changes_nothing() -> None:
    module = make_module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    check_memory(module, cuda=False)
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.grad is None for p in module.parameters())
    assert module.model.training
