"""The parts of the loop, each on its own."""

from __future__ import annotations

import copy
import os
import random
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.train.small import digits, net, same
from tonsor.errors import RecipeError, TrainError
from tonsor.train import Batches, Ema, Evaluation, Recipe, calibrate, distillation, evaluate
from tonsor.train.distill import loss_of
from tonsor.train.optimizer import make_optimizer, set_rate
from tonsor.train.rng import rng_state, seeded, set_rng_state
from tonsor.train.stop import Stop

CPU = torch.device("cpu")


def batches(size: int = 32, **options) -> Batches:
    splits = digits()
    return Batches(
        splits.train, size=size, mean=splits.mean, std=splits.std, shuffle=False, seed=0, **options
    )


def test_an_evaluation_is_that_of_all_images_at_once() -> None:
    model = net()
    x, y = next(batches(200).epoch(0))
    model.eval()
    with torch.no_grad():
        logits = model(x)
    model.train()
    model.conv.eval()
    found = evaluate(model, batches(33))
    assert found.total == 200
    assert found.correct == int((logits.argmax(1) == y).sum())
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)
    assert model.training
    assert not model.conv.training


def test_the_standard_error_is_the_binomial_one() -> None:
    assert Evaluation(90, 100, 0.0).standard_error == pytest.approx(0.03)


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(TrainError, match="scores of the shape"):
        evaluate(nn.Conv2d(1, 2, 1), batches())


def test_too_few_classes_are_refused_with_both_numbers() -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(TrainError, match="5 classes apart, the data has 10"):
        evaluate(small, batches())


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(TrainError, match="teacher tells 6 classes apart, the model 5"):
        loss_of(torch.randn(4, 5), torch.arange(4), teacher=torch.randn(4, 6), weight=0.5)


def test_distillation_is_zero_for_equals_and_pulls_towards_the_teacher() -> None:
    teacher = torch.randn(4, 5)
    student = torch.zeros(4, 5, requires_grad=True)
    assert float(distillation(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)
    before = distillation(student, teacher, 3.0)
    before.backward()
    assert student.grad is not None
    assert distillation(student - student.grad, teacher, 3.0) < before


def test_the_weight_of_the_teacher_mixes_the_losses() -> None:
    logits, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.arange(4)
    hard, soft = F.cross_entropy(logits, labels), distillation(logits, teacher, 4.0)
    mixed = loss_of(logits, labels, teacher=teacher, weight=0.3)
    assert float(mixed) == pytest.approx(float(0.7 * hard + 0.3 * soft))


def test_a_moving_average_is_what_its_formula_says() -> None:
    model = net()
    ema = Ema(model, 0.5)
    wanted = model.linear.weight.detach().clone()
    for update in range(1, 6):
        with torch.no_grad():
            model.linear.weight += 1
        ema.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        wanted = decay * wanted + (1 - decay) * model.linear.weight.detach()
    live = copy.deepcopy(model)
    with ema.in_place(model):
        torch.testing.assert_close(model.linear.weight.detach(), wanted)
    assert same(model, live)


def test_calibration_gives_the_statistics_of_the_data_and_nothing_else() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    model.norm.get_buffer("running_mean").fill_(9.0)  # stale
    x, _ = next(batches(200).epoch(0))
    assert calibrate(model, batches(50), 4) == 4
    with torch.no_grad():
        seen = model.conv(x)
    torch.testing.assert_close(model.norm.running_mean, seen.mean((0, 2, 3)))
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"norm.running_mean", "norm.running_var"}
    assert model.norm.momentum == 0.1
    assert model.training


def test_calibration_leaves_a_model_without_batchnorm_alone() -> None:
    assert calibrate(net(norm=False), batches(), 4) == 0


def test_exceptions_for_some_parameters() -> None:
    recipe = Recipe(
        lr=0.1, weight_decay=0.01, scales=(("*.bias", 2.0, 0.0), ("linear.*", 1.0, 3.0))
    )
    optimizer = make_optimizer(net(), recipe)
    set_rate(optimizer, 0.5)
    found = sorted((g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups)
    assert found == [(0.5, 0.01, 2), (0.5, 0.03, 2), (1.0, 0.0, 2)]


def test_vectors_can_be_spared_decay_and_frozen_parameters_are_left_out() -> None:
    model = net()
    model.conv.requires_grad_(False)
    optimizer = make_optimizer(model, Recipe(decay_vectors=False, optimizer="adamw"))
    decays = {len(g["params"]): g["weight_decay"] for g in optimizer.param_groups}
    assert decays == {3: 0.0, 1: 5e-4}  # two of the norm and a bias; the weight of linear


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="no parameter of Net has a name like 'fc"):
        make_optimizer(net(), Recipe(scales=(("fc.*", 1.0, 1.0),)))


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(TrainError, match="nothing to train"):
        make_optimizer(net().requires_grad_(False), Recipe())


def draws() -> list[float]:
    return [float(torch.rand(())), random.random(), float(np.random.rand()), np.random.randn()]


def test_chance_goes_on_where_it_was_taken_down() -> None:
    with seeded(0, CPU):
        draws()
        state = rng_state(CPU)
        first = draws()
        set_rng_state(state, CPU)
        assert draws() == first


def test_a_seed_leaves_the_generators_as_they_were() -> None:
    before = rng_state(CPU)
    with seeded(3, CPU):
        found = draws()
    with seeded(3, CPU):
        assert draws() == found
    assert torch.equal(rng_state(CPU)["torch"], before["torch"])
    assert rng_state(CPU)["python"] == before["python"]


def test_the_first_ctrl_c_is_noted_and_the_second_obeyed() -> None:
    # In the background of a shell script Ctrl-C is ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Stop() as stop:
            assert not stop.asked
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
