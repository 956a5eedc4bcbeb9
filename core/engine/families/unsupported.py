"""Suppress errors by which code shows that it does not support a family, but not those of a full or broken device.
Workers only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.files import is_out_of_memory

OF_CODE = (ValueError, TypeError, KeyError, AttributeError, RuntimeError)


@contextmanager
def tolerated(*errors: type[Exception]) -> Iterator[None]:
    """Suppress errors of these types (default: OF_CODE) around code that not every family supports and that has a
    substitute.

    Errors of a full or broken device are raised: torch's types for them are RuntimeErrors too, and a family that
    supports the code would silently be trained by the substitute, which takes more memory.
    """
    kinds = errors or OF_CODE
    try:
        yield
    except kinds as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
