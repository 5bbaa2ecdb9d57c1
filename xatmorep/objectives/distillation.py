"""Self-distillation: a student learns to say about a part what its teacher says about the whole.

No labels are needed, and nothing is predicted in detail. Student and teacher are encoders of the
same kind; the teacher is a slow average of the student (DINO, Caron et al. 2021,
arXiv:2104.14294). Both read views of a neighborhood, pool what they see to one vector, and turn it
into a distribution over prototypes that have no meaning of their own. The student is to give for
every view the distribution that the teacher gives for another one.

Views are masks, not cut-outs: the encoder reads boxes of a fixed size and knows each place in
them, so that in the place of an image crop the same box comes with all else hidden. A *global* view
hides little; a *local* one shows a small box or a few tokens. Teachers read global views only,
students read all. There is nothing like the flips and colors of images: the atmosphere isn't
symmetric, and values mean something. But noised or coarsened tokens can be asked for, as they are
kinds of masking. And views are told wrong times and places (`xatmorep.objectives.views.displace`),
since the true ones give away which neighborhood it is.

`draw_views` and `Distillation` are what a training loop needs; that of `xatmorep.training` adds the
loss to the masked one, or takes it alone. What is called `step` is the number of steps that were
done before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from torch import Tensor, nn

from xatmorep.errors import ConfigError
from xatmorep.objectives.collapse import CollapseGuard
from xatmorep.objectives.masking import Masked, MaskingConfig, check_strategies, hide
from xatmorep.objectives.teacher import (
    Center,
    ProjectionHead,
    linear_warmup,
    momentum_update,
    precise,
    rising_momentum,
    teacher_distribution,
)
from xatmorep.objectives.views import View, pool
from xatmorep.tokens.spec import InputSpec

__all__ = [
    "Distillation",
    "DistillationConfig",
    "check_views",
    "distillation_loss",
    "draw_views",
]

N = TypeVar("N", bound=nn.Module)
V = TypeVar("V", bound=View)
Size = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]

WITHHELD = {"replaced": 1.0, "noised": 0.0, "coarsened": 0.0, "left": 0.0}


class DistillationConfig(BaseModel):
    """How a student is taught.

    Attributes
    ----------
    weight : float
        Weight of the loss of distillation.
    masked_weight : float
        Weight of the loss of the masked objective beside it; 0 for distillation alone.
    n_global, n_local : int
        Views of each neighborhood. Unlike crops of an image, local ones cost as much as global
        ones: one pass of the encoder, and one more of the teacher's for global ones.
    global_masking, local_masking : MaskingConfig
        What is hidden in them; a mapping needs only the keys that differ from these defaults.
    displaced : bool
        Whether views are told wrong times and places, see `xatmorep.objectives.views.displace`.
        The static fields of one are those of another neighborhood that is cut from the same times.
    prototypes : int
        Number K of prototypes.
    hidden, bottleneck : int
        Width of the hidden layers of the head, and of its vectors that prototypes are compared
        with.
    student_temperature : float
        Temperature of the student's distributions.
    teacher_temperature : tuple of float
        Temperatures of the teacher's at the beginning and after the warm-up; lower than that of
        the student, or else nothing keeps the distributions from becoming uniform.
    teacher_warmup : float
        Share of the steps in which the temperature changes from the first to the second.
    teacher_momentum : float
        What the teacher keeps of itself in the first step; it rises to 1 along a cosine.
    center_momentum : float
        What the center keeps of itself in each step; with 1 there is no centering.

    Examples
    --------
    >>> DistillationConfig(n_local=6, teacher_temperature=(0.04, 0.07)).masked_weight
    1.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    masked_weight: Weight = 1.0
    n_global: int = Field(default=2, ge=1)
    n_local: int = Field(default=2, ge=0)
    global_masking: MaskingConfig = MaskingConfig(rate=(0.0, 0.3), **WITHHELD)
    local_masking: MaskingConfig = MaskingConfig(
        strategies={"large": 1.0}, together=True, rate=(0.0, 0.8), **WITHHELD
    )
    displaced: bool = True
    prototypes: int = Field(default=1024, ge=2)
    hidden: Size = 256
    bottleneck: Size = 64
    student_temperature: Temperature = 0.1
    teacher_temperature: tuple[Temperature, Temperature] = (0.04, 0.04)
    teacher_warmup: Share = 0.3
    teacher_momentum: float = Field(default=0.996, ge=0, lt=1)
    center_momentum: Share = 0.9

    @field_validator("global_masking", "local_masking", mode="before")
    @classmethod
    def _complete(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {**cls.model_fields[str(info.field_name)].default.model_dump(), **value}

    @model_validator(mode="after")
    def _check(self) -> DistillationConfig:
        if self.n_global + self.n_local < 2:
            raise ValueError(
                "a view is compared with another one: n_global + n_local must be 2 or more, found "
                f"{self.n_global} + {self.n_local}"
            )
        if max(self.teacher_temperature) >= self.student_temperature:
            raise ValueError(
                f"teacher_temperature {self.teacher_temperature} must be lower than "
                f"student_temperature {self.student_temperature}, or everything becomes uniform"
            )
        return self


def check_views(config: DistillationConfig, inputs: InputSpec) -> None:
    """Refuse views that a model can't have, see `xatmorep.objectives.masking.check_strategies`.

    Raises
    ------
    ConfigError
        Naming the key, and the first strategy that is impossible.
    """
    for key in ("global_masking", "local_masking") if config.n_local else ("global_masking",):
        try:
            check_strategies(getattr(config, key), inputs)
        except ConfigError as error:
            raise ConfigError(f"distillation.{key}: {error}") from error


def draw_views(
    tokens: Mapping[str, Tensor], config: DistillationConfig, generator: torch.Generator
) -> list[Masked]:
    """Draw the views of neighborhoods: first the global ones, then the local ones.

    Parameters
    ----------
    tokens : mapping of str to Tensor
        Normalized values ``(batch, level, T, A, O, t, a, o)`` by field.
    config : DistillationConfig
        Numbers of views, and what is hidden in them.
    generator : torch.Generator
        Source of all draws.

    Examples
    --------
    >>> tokens = {"2m_temperature": torch.randn(2, 1, 4, 4, 4, 1, 6, 6)}
    >>> views = draw_views(tokens, DistillationConfig(), torch.Generator().manual_seed(0))
    >>> [int(view.blank["2m_temperature"][0].sum()) for view in views]  # of 64 tokens
    [19, 12, 61, 58]
    """
    masks = [config.global_masking] * config.n_global + [config.local_masking] * config.n_local
    return [hide(tokens, mask, generator) for mask in masks]


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    r"""How badly the student foretells the teacher's answers to other views.

    .. math::
        L = \frac{1}{n} \sum_{i} \sum_{j \ne i} \frac{1}{B} \sum_b
        - \sum_k p_{i b k} \log q_{j b k},
        \qquad q_{j b} = \mathrm{softmax}(h_{j b} / \tau_s)

    with the teacher's distributions p from `teacher_distribution` for its views i, all views j of
    the student but the same one, n such pairs and B samples (equations 1 to 3 of the DINO paper).
    It is at least the mean entropy of p, and log K for a student that says nothing.

    Parameters
    ----------
    student : Tensor
        ``(S, B, K)``: answers of the student's head for its views. The first V are the teacher's
        views.
    teacher : Tensor
        ``(V, B, K)``: answers of the teacher's head, V <= S, S > 1. They get no gradient.
    center : Tensor
        ``(K,)``, see `Center`.
    student_temperature, teacher_temperature : float
        Temperatures :math:`\tau_s` and :math:`\tau_t`.

    Returns
    -------
    Tensor
        Scalar, in float32 at least, also under autocast. The loss of a batch is the mean of the
        losses of its parts, weighted with their numbers of samples.

    Examples
    --------
    >>> silent = torch.zeros(3, 2, 8)
    >>> loss = distillation_loss(
    ...     silent, silent[:2], torch.zeros(8), student_temperature=0.1, teacher_temperature=0.04
    ... )
    >>> loss.exp().round()
    tensor(8.)
    """
    n_views, batch, _ = student.shape
    with torch.autocast(student.device.type, enabled=False):
        p = teacher_distribution(teacher, center, teacher_temperature)
        log_q = (precise(student) / student_temperature).log_softmax(-1)
        pairs = -torch.einsum("ibk,jbk->ij", p.to(log_q), log_q) / batch
    others = ~torch.eye(len(p), n_views, dtype=torch.bool, device=pairs.device)
    return pairs[others].mean()


class Distillation(nn.Module):
    """All of self-distillation that has a state, besides the student's encoder.

    In each step the loss is computed, for the whole batch or for its parts, each multiplied with
    its share of the samples; and after the step of the optimizer, `update` moves the teacher.
    Between two steps the state dict is all that has to be saved besides the student's encoder.

    Parameters
    ----------
    network : torch.nn.Module
        Encoder of the student. The teacher begins as a copy of it.
    width : int
        Width of pooled features: the sum of the widths of the fields.
    config : DistillationConfig
        How the student is taught.
    generator : torch.Generator, optional
        Draws the initial weights of the head; torch's global one if not given.

    Attributes
    ----------
    head : ProjectionHead
        That of the student, to be trained with `network`.
    teacher : torch.nn.Module
        The teacher's encoder: no gradients, and always in evaluation mode.
    teacher_head : ProjectionHead
        Likewise.
    center : Center
    guard : CollapseGuard
    """

    def __init__(
        self,
        network: nn.Module,
        width: int,
        config: DistillationConfig,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.head = ProjectionHead(
            width, config.hidden, config.bottleneck, config.prototypes, generator
        )
        self.teacher = copy.deepcopy(network).requires_grad_(False).eval()
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False).eval()
        self.center = Center(config.prototypes, config.center_momentum)
        self.guard = CollapseGuard()

    def forward(
        self,
        network: N,
        views: Sequence[V],
        encode: Callable[[N, V], Mapping[str, Tensor]],
        step: int,
        steps: int,
    ) -> Tensor:
        """Loss of a batch or a part of it, see `distillation_loss`.

        Center and guard look at the teacher's answers, but not in evaluation mode: then nothing
        changes.

        Parameters
        ----------
        network : torch.nn.Module
            Encoder of the student.
        views : sequence of View
            The global views, then the local ones, as `draw_views` gives them, made to what the
            network reads.
        encode : callable
            Features of the last layer, ``(batch, N, D)`` by field, for a network (the student's
            or the teacher's) and a view.
        step, steps : int
            Number of the step, from 0, and how many there are.
        """
        config = self.config

        def answers(encoder: N, head: nn.Module, views: Sequence[V]) -> tuple[Tensor, Tensor]:
            features = torch.stack([pool(encode(encoder, view), view.blank) for view in views])
            return features, head(features)

        _, student = answers(network, self.head, views)
        with torch.no_grad():
            teacher = cast("N", self.teacher)
            features, target = answers(teacher, self.teacher_head, views[: config.n_global])
            first, last = config.teacher_temperature
            temperature = linear_warmup(
                step, steps, first=first, last=last, share=config.teacher_warmup
            )
            distribution = teacher_distribution(target, self.center.value, temperature)
            if self.training:
                self.guard.collect(distribution, features)
                self.center.collect(target)
        return distillation_loss(
            student,
            target,
            self.center.value,
            student_temperature=config.student_temperature,
            teacher_temperature=temperature,
        )

    def update(
        self,
        network: nn.Module,
        step: int,
        steps: int,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Move teacher and center, after the optimizer did its step.

        Parameters
        ----------
        network : torch.nn.Module
            Encoder of the student.
        step, steps : int
            Number of the step that was done, from 0, and how many there are.
        reduce : callable, optional
            Sums a tensor over all processes that train together.
        """
        self.center.update(reduce)
        momentum = rising_momentum(step, steps, first=self.config.teacher_momentum)
        momentum_update(self.teacher, network, momentum)
        momentum_update(self.teacher_head, self.head, momentum)

    def train(self, mode: bool = True) -> Distillation:
        """Set the mode of all but the teacher, which stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        self.teacher_head.eval()
        return self
