"""Self-distillation: its loss against a slow twin, and that it learns without collapsing."""

from __future__ import annotations

import dataclasses
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from tests.model import networks
from tests.objectives import tiny
from tests.tokens.strategies import make_spec
from xatmorep.errors import ConfigError
from xatmorep.model.inputs import NetworkInput
from xatmorep.model.multiformer import Multiformer
from xatmorep.objectives.collapse import CollapseReport
from xatmorep.objectives.distillation import (
    Distillation,
    DistillationConfig,
    check_views,
    distillation_loss,
    draw_views,
)
from xatmorep.objectives.masking import MaskingConfig
from xatmorep.objectives.views import displace, pool
from xatmorep.strict import validate

TEMPERATURES = {"student_temperature": 0.1, "teacher_temperature": 0.04}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- configuration


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_global": 1, "n_local": 0}, "must be 2 or more, found 1 [+] 0"),
        ({"n_global": 0}, "greater than or equal to 1"),
        ({"n_local": -1}, "greater than or equal to 0"),
        ({"weight": 0.0}, "greater than 0"),
        ({"weight": math.inf}, "finite number"),
        ({"masked_weight": -1.0}, "greater than or equal to 0"),
        ({"teacher_temperature": (0.04, 0.1)}, "must be lower than student_temperature 0.1"),
        ({"teacher_temperature": (0.0, 0.04)}, "greater than 0"),
        ({"teacher_momentum": 1.0}, "less than 1"),
        ({"center_momentum": 1.1}, "less than or equal to 1"),
        ({"prototypes": 1}, "greater than or equal to 2"),
        ({"local_masking": {"rate": (0.9, 0.1)}}, "wrong way round"),
    ],
)
def test_impossible_configurations_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DistillationConfig(**arguments)


def test_unknown_keys_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'teacher_momentum'"):
        validate(DistillationConfig, {"teacher_momentun": 0.9}, "distillation")
    with pytest.raises(ConfigError, match=r"local_masking.rates: unknown key; did you mean 'rate'"):
        validate(DistillationConfig, {"local_masking": {"rates": (0, 1)}}, "distillation")


def test_a_mapping_changes_only_what_it_names() -> None:
    default = DistillationConfig()
    changed = DistillationConfig(local_masking={"rate": (0.2, 0.5)}, global_masking={})
    assert changed.global_masking == default.global_masking
    assert changed.local_masking == default.local_masking.model_copy(update={"rate": (0.2, 0.5)})
    again = DistillationConfig.model_validate(changed.model_dump(mode="json"))
    assert again == changed


def test_views_that_are_impossible_for_a_model_are_refused() -> None:
    inputs = make_spec((2, 2, 2), {"u": ((2, 2, 2), (500.0, 850.0))})
    with pytest.raises(ConfigError, match=r"^distillation.local_masking: .* 'large' needs"):
        check_views(DistillationConfig(), inputs)
    config = DistillationConfig(global_masking=MaskingConfig(strategies={"fields": 1.0}))
    with pytest.raises(ConfigError, match=r"^distillation.global_masking: .* 'fields' needs"):
        check_views(config, inputs)
    check_views(DistillationConfig(n_global=2, n_local=0), inputs)
    check_views(DistillationConfig(), make_spec((4, 4, 4), {"u": ((1, 2, 2), (500.0, 850.0))}))


# ---- views


def test_global_views_show_much_and_local_ones_little() -> None:
    tokens = tiny.neighborhoods(100, seed=0)
    views = draw_views(tokens, DistillationConfig(n_global=2, n_local=3), seeded())
    shares = [
        torch.cat([view.blank[name].flatten(1) for name in tokens], dim=1).double().mean(1)
        for view in views
    ]
    assert len(views) == 5
    for share in shares[:2]:
        assert share.max() <= 0.32
    for share in shares[2:]:
        assert 0.7 <= share.min() < share.max() < 1
    for one, two in permutations(views, 2):
        assert not torch.equal(one.blank["u"], two.blank["u"])


def test_a_local_view_shows_one_place_of_all_fields_in_part_of_the_samples() -> None:
    tokens = {name: torch.randn(200, 2, 4, 4, 4, 1, 2, 2) for name in ("u", "v")}
    view = draw_views(tokens, DistillationConfig(n_global=1, n_local=1), seeded())[1]
    assert torch.equal(view.blank["u"], view.blank["v"])
    boxes = 0
    for mask in ~view.blank["u"]:
        places = mask[0].nonzero()
        size = places.amax(0) - places.amin(0) + 1
        boxes += bool(size.prod() < 2 * len(places))
    assert 60 < boxes < 140


def test_one_seed_gives_the_same_views_whatever_the_order_of_fields() -> None:
    tokens = tiny.neighborhoods(3, seed=0)
    config = DistillationConfig()
    one = draw_views(tokens, config, seeded(1))
    two = draw_views(dict(reversed(tokens.items())), config, seeded(1))
    other = draw_views(tokens, config, seeded(2))
    for a, b, c in zip(one, two, other, strict=True):
        assert all(torch.equal(a.tokens[name], b.tokens[name]) for name in tokens)
        assert any(not torch.equal(a.blank[name], c.blank[name]) for name in tokens)


# ---- loss


def answers(
    n_student: int = 4, n_teacher: int = 2, batch: int = 3, prototypes: int = 5, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeded(seed)
    student = torch.randn(n_student, batch, prototypes, generator=generator, dtype=torch.float64)
    teacher = torch.randn(n_teacher, batch, prototypes, generator=generator, dtype=torch.float64)
    return 0.3 * student, 0.3 * teacher, 0.1 * student.mean((0, 1))


def slow_loss(
    student: np.ndarray, teacher: np.ndarray, center: np.ndarray, of: float, to: float
) -> float:
    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum()

    losses = []
    for i, t in enumerate(teacher):
        for j, s in enumerate(student):
            if i != j:
                for b in range(len(t)):
                    p, q = softmax((t[b] - center) / to), softmax(s[b] / of)
                    losses.append(-sum(p[k] * math.log(q[k]) for k in range(len(p))))
    return float(np.mean(losses))


@given(
    seed=st.integers(0, 1000),
    views=st.sampled_from([(2, 1), (2, 2), (4, 2), (5, 3), (1 + 3, 1)]),
    temperatures=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
)
def test_loss_equals_its_formula_written_out(
    seed: int, views: tuple[int, int], temperatures: tuple[float, float]
) -> None:
    case = answers(*views, seed=seed)
    of, to = temperatures
    found = distillation_loss(*case, student_temperature=of, teacher_temperature=to)
    assert found.item() == pytest.approx(slow_loss(*(x.numpy() for x in case), of, to))


def test_gradient_equals_finite_differences() -> None:
    student, teacher, center = answers()
    assert torch.autograd.gradcheck(
        lambda s: distillation_loss(
            s, teacher, center, student_temperature=0.3, teacher_temperature=0.2
        ),
        student.requires_grad_(),
    )


def test_gradient_reaches_the_student_alone() -> None:
    case = [x.requires_grad_() for x in map(torch.detach, answers())]
    distillation_loss(*case, **TEMPERATURES).backward()
    student, teacher, center = case
    assert (student.grad != 0).all()
    assert teacher.grad is None
    assert center.grad is None


def test_the_order_of_views_does_not_matter() -> None:
    student, teacher, center = answers(n_student=5, n_teacher=3)
    wanted = distillation_loss(student, teacher, center, **TEMPERATURES)
    for order in permutations(range(3)):
        for rest in ((3, 4), (4, 3)):
            shuffled = distillation_loss(
                student[[*order, *rest]], teacher[list(order)], center, **TEMPERATURES
            )
            torch.testing.assert_close(shuffled, wanted)


def test_a_view_is_not_compared_with_itself() -> None:
    student, teacher, center = answers(n_student=2, n_teacher=1)
    changed = student.clone()
    changed[0] += torch.randn(3, 5, generator=seeded())
    wanted = distillation_loss(student, teacher, center, **TEMPERATURES)
    assert torch.equal(distillation_loss(changed, teacher, center, **TEMPERATURES), wanted)


def test_the_least_is_the_entropy_of_the_teacher() -> None:
    _, teacher, center = answers(n_teacher=1)
    p = ((teacher - center) / 0.04).softmax(-1)
    perfect = (0.1 * p.log()).expand(3, -1, -1)
    found = distillation_loss(perfect, teacher, center, **TEMPERATURES)
    torch.testing.assert_close(found, torch.special.entr(p).sum(-1).mean())
    for seed in range(5):
        other = perfect + 0.1 * torch.randn(perfect.shape, generator=seeded(seed))
        assert distillation_loss(other, teacher, center, **TEMPERATURES) > found


def test_loss_of_a_batch_is_the_mean_of_those_of_its_parts() -> None:
    student, teacher, center = answers(batch=5)
    whole = distillation_loss(student, teacher, center, **TEMPERATURES)
    parts = [
        distillation_loss(student[:, part], teacher[:, part], center, **TEMPERATURES)
        for part in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close((2 * parts[0] + 3 * parts[1]) / 5, whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(dtype: torch.dtype) -> None:
    student, teacher, center = (x.to(dtype) for x in answers(prototypes=4096))
    exact = distillation_loss(student.float(), teacher.float(), center.float(), **TEMPERATURES)
    with torch.autocast("cpu", dtype):
        found = distillation_loss(student, teacher, center, **TEMPERATURES)
        mixed = distillation_loss(student.float(), teacher.float(), center.float(), **TEMPERATURES)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)
    assert torch.equal(mixed, exact)


def test_answers_that_are_far_apart_give_finite_loss_and_gradient() -> None:
    student = torch.tensor([[[60000.0, -60000.0]], [[-60000.0, 60000.0]]]).half()
    student.requires_grad_()
    loss = distillation_loss(student, student.detach(), torch.zeros(2), **TEMPERATURES)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


# ---- a step


def one_step(
    run: tiny.Run, step: int = 0, views: slice = slice(None), samples: slice = slice(None)
) -> Tensor:
    seen = [
        dataclasses.replace(
            view,
            tokens={name: x[samples] for name, x in view.tokens.items()},
            blank={name: x[samples] for name, x in view.blank.items()},
        )
        for view in tiny.views(0, 16)[views]
    ]
    loss: Tensor = run.distillation(run.network, seen, tiny.encode, step, run.steps)
    return loss


def test_only_the_student_learns_by_gradients() -> None:
    run = tiny.Run(tiny.small(), steps=10)
    one_step(run).backward()
    distillation = run.distillation
    for parameter in (*run.network.parameters(), *distillation.head.parameters()):
        assert parameter.grad is not None
        assert (parameter.grad != 0).any()
    for parameter in (*distillation.teacher.parameters(), *distillation.teacher_head.parameters()):
        assert not parameter.requires_grad
        assert parameter.grad is None


def test_loss_of_a_step_is_that_of_its_parts_put_together() -> None:
    run = tiny.Run(tiny.small(teacher_temperature=(0.02, 0.06), teacher_warmup=1.0), steps=8)
    run.learn(range(3))
    distillation, views = run.distillation, tiny.views(0, 16)
    with torch.no_grad():
        student = [distillation.head(pool(run.network(view), view.blank)) for view in views]
        teacher = [
            distillation.teacher_head(pool(distillation.teacher(view), view.blank))
            for view in views[:2]
        ]
    wanted = distillation_loss(
        torch.stack(student),
        torch.stack(teacher),
        distillation.center.value,
        student_temperature=0.1,
        teacher_temperature=0.04,  # after half of the warm-up
    )
    assert torch.equal(one_step(run, step=4), wanted)


def test_a_step_moves_teacher_and_center() -> None:
    run = tiny.Run(tiny.small(teacher_momentum=0.9, center_momentum=0.7), steps=4)
    distillation = run.distillation
    before = {name: x.clone() for name, x in distillation.state_dict().items()}
    view = tiny.views(0, 16)[:2]
    said = torch.cat(
        [distillation.teacher_head(pool(distillation.teacher(v), v.blank)) for v in view]
    )
    run.learn(range(1))
    after = distillation.state_dict()
    for name, x in run.network.state_dict().items():
        wanted = 0.9 * before[f"teacher.{name}"] + 0.1 * x
        torch.testing.assert_close(after[f"teacher.{name}"], wanted)
    for name, x in distillation.head.state_dict().items():
        assert not torch.equal(x, before[f"head.{name}"])
        wanted = 0.9 * before[f"teacher_head.{name}"] + 0.1 * x
        torch.testing.assert_close(after[f"teacher_head.{name}"], wanted)
    torch.testing.assert_close(after["center.value"], 0.3 * said.mean(0))


def test_parts_of_a_batch_make_the_step_of_the_whole() -> None:
    whole, parts = (tiny.Run(tiny.small(), steps=4) for _ in range(2))
    one_step(whole).backward()
    for samples in (slice(0, 6), slice(6, 16)):
        share = (samples.stop - samples.start) / 16
        (share * one_step(parts, samples=samples)).backward()
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    for run in (whole, parts):
        run.distillation.update(run.network, 0, 4)
    torch.testing.assert_close(parts.distillation.center.value, whole.distillation.center.value)


def test_processes_share_one_center() -> None:
    whole, *ranks = (tiny.Run(tiny.small(), steps=4) for _ in range(3))
    one_step(whole)
    whole.distillation.update(whole.network, 0, 4)
    for run, samples in zip(ranks, (slice(0, 6), slice(6, 16)), strict=True):
        one_step(run, samples=samples)
    total = torch.stack([run.distillation.center.sums for run in ranks]).sum(0)
    for run in ranks:
        run.distillation.update(run.network, 0, 4, reduce=lambda _: total)
        torch.testing.assert_close(run.distillation.center.value, whole.distillation.center.value)


def test_the_teacher_has_no_dropout_whatever_the_mode() -> None:
    run = tiny.Run(tiny.small(), steps=4, dropout=0.5)
    assert not any(module.training for module in run.distillation.teacher.modules())
    distillation = run.distillation.train()
    assert distillation.head.training
    assert not any(module.training for module in distillation.teacher.modules())
    one_step(run)
    said = distillation.center.sums.clone()
    one_step(run)
    assert torch.equal(distillation.center.sums, 2 * said)


def test_in_evaluation_mode_nothing_changes() -> None:
    run = tiny.Run(tiny.small(), steps=4)
    run.learn(range(2))
    distillation = run.distillation
    before = {name: x.clone() for name, x in distillation.state_dict().items()}
    wanted = one_step(run)
    distillation.center.update()
    moved = distillation.center.value.clone()
    distillation.load_state_dict(before)
    distillation.eval()
    assert torch.equal(one_step(run), wanted)
    distillation.center.update()
    assert all(torch.equal(x, before[name]) for name, x in distillation.state_dict().items())
    assert not torch.equal(moved, before["center.value"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_step_under_autocast(dtype: torch.dtype) -> None:
    exact, run = (tiny.Run(tiny.small(), steps=4) for _ in range(2))
    wanted = one_step(exact)
    with torch.autocast("cpu", dtype):
        loss = one_step(run)
    loss.backward()
    assert loss.dtype == torch.float32
    assert run.distillation.center.sums.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=0.05)
    assert all(p.grad.isfinite().all() for p in run.network.parameters())


def test_a_run_goes_on_from_its_state_to_the_last_digit() -> None:
    config = tiny.small(teacher_temperature=(0.04, 0.07))
    whole, first, second = (tiny.Run(config, steps=12, dropout=0.1) for _ in range(3))
    losses = whole.learn(range(12))
    begun = first.learn(range(5))
    second.restore(first.content())
    assert begun + second.learn(range(5, 12)) == losses
    for one, two in zip(whole.content().values(), second.content().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert second.distillation.guard.report() == whole.distillation.guard.report()


# ---- collapse


def train(**changes: object) -> CollapseReport:
    """Report of the last third of a run; the changes need not be allowed by the configuration."""
    run = tiny.Run(tiny.small().model_copy(update=changes), steps=90)
    losses = run.learn(range(60))
    run.distillation.guard.report()
    losses += run.learn(range(60, 90))
    assert np.isfinite(losses).all()
    return run.distillation.guard.report()


def test_centering_and_sharpening_together_do_not_collapse() -> None:
    report = train()
    assert report.warning is None
    assert report.numbers["teacher_told_apart"] > 0.1
    assert report.numbers["teacher_entropy"] < 0.9
    assert report.numbers["teacher_mean_entropy"] > 0.4


def test_without_sharpening_everything_becomes_uniform() -> None:
    report = train(teacher_temperature=(0.1, 0.1))
    assert report.numbers["teacher_entropy"] > 0.95
    assert "spread evenly over all of them" in report.warning


def test_without_centering_one_prototype_has_everything() -> None:
    report = train(center_momentum=1.0)
    assert report.numbers["teacher_mean_entropy"] < 0.1
    assert "with everything on one of them" in report.warning


# ---- with the multiformer


def last_layer(network: Multiformer, inputs: NetworkInput) -> dict[str, Tensor]:
    return {name: layers[-1] for name, layers in network.encode(inputs).items()}


def test_step_of_a_multiformer() -> None:
    """The few lines that a training loop needs, with both objectives."""
    model = networks.config(networks.spec(statics=True))
    generator = seeded()
    network = Multiformer(model, generator)
    inputs = networks.inputs(model, batch=4, rate=0.0)
    config = DistillationConfig(
        local_masking={"together": False},
        n_local=2,
        prototypes=16,
        hidden=16,
        bottleneck=8,
    )
    check_views(config, model.inputs)
    width = sum(entry.width for entry in model.networks.values())
    distillation = Distillation(network, width, config, generator)
    parameters: list[nn.Parameter] = [*network.parameters(), *distillation.head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    shapes = {field.name: field.token_shape for field in model.inputs.fields}
    tokens = {name: x.unflatten(-1, shapes[name]) for name, x in inputs.tokens.items()}
    views = []
    for view in draw_views(tokens, config, generator):
        info, statics = displace(inputs.info, inputs.statics, generator)
        flat = {name: x.flatten(-3) for name, x in view.tokens.items()}
        views.append(NetworkInput(flat, info, view.blank, statics))

    before = {name: x.clone() for name, x in distillation.state_dict().items()}
    loss = distillation(network, views, last_layer, 0, 10)
    masked = torch.stack([x.square().mean() for x in network(inputs).values()]).sum()
    (config.weight * loss + config.masked_weight * masked).backward()
    encoder = [*network.embeddings.parameters(), *network.encoders.parameters()]
    assert all(parameter.grad is not None for parameter in encoder)
    optimizer.step()
    distillation.update(network, 0, 10)
    assert 0 < loss.item() < 2 * math.log(16)
    assert distillation.guard.report().warning is None
    after = distillation.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in after if "teacher." in name)
    # Static fields and place in the box differ from token to token, but nothing may be NaN.
    assert all(x.isfinite().all() for x in after.values())
