"""How a model is run, the same for all tasks."""

from __future__ import annotations

from dataclasses import dataclass

from xatmorep.errors import ConfigError

__all__ = ["DTYPES", "Options"]

DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """How a model is run; the same for all tasks.

    Attributes
    ----------
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    batch_size : int
        Neighborhoods that the network sees at once.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type in which the network computes.
    overlap : float
        Share of a neighborhood that the next one has in common with it along each dimension.
    """

    device: str | None = None
    batch_size: int = 8
    dtype: str = "float32"
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap must be at least 0 and less than 1, not {self.overlap}")
