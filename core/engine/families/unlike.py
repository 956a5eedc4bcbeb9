"""Errors by which code shows that a family is built otherwise, told apart from those of a full or broken device.
Workers only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.files import is_out_of_memory

OF_CODE = (ValueError, TypeError, KeyError, AttributeError, RuntimeError)


@contextmanager
def tried(*errors: type[Exception]) -> Iterator[None]:
    """Suppress errors of these types (default: OF_CODE) around what not every family supports and which has a
    substitute.

    What says that the device is full or broken is raised: torch's types for it are RuntimeErrors too, and a family that
    supports what is tried would silently be trained by the substitute, which takes more memory.
    """
    kinds = errors or OF_CODE
    try:
        yield
    except kinds as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
