"""NaN and infinity end a run with the epoch and the batch named, after what there was is kept.

Looked at once an epoch: on a GPU the host would have to wait for every batch that it looks at.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from anomalib_rd.errors import NotFiniteError
from anomalib_rd.results.record import FAILURE, write_failure


def require_finite_training(
    losses: Sequence[Tensor], weights: Iterable[Tensor], epoch: int, kept: Sequence[float], way: str
) -> None:
    """Look at an epoch that was trained.

    Args:
        losses: of its batches, scalars on any device.
        weights: as the last batch left them, running statistics too.
        epoch: its number, from 1.
        kept: mean losses of the epochs before, for the record.
        way: out of it, for the user.

    Raises:
        NotFiniteError: naming the first batch whose loss is not finite, or the last one if it
            left weights that are not.
    """
    floats = [tensor.detach() for tensor in weights if tensor.is_floating_point()]
    norm = torch.nn.utils.get_total_norm(floats)  # NaN or infinite if any of them is
    *values, norm_value = torch.stack([*losses, norm.to(losses[0])]).tolist()  # the one wait
    bad = first_not_finite(values)
    where = f"in batch {(bad or 0) + 1} of {len(values)} of epoch {epoch}"
    if bad is not None:
        what = f"train/loss is {values[bad]} {where}"
    elif first_not_finite([norm_value]) is not None:
        what = (
            f"the weights are not finite after the last of {len(values)} batches of epoch {epoch}"
        )
    else:
        return
    raise NotFiniteError(
        f"{what}: training diverged; {way}", {"loss_curve": list(kept), "batch_losses": values}
    )


def require_finite_maps(finite: Sequence[Tensor], stage: str, epoch: int, way: str) -> None:
    """Look at the anomaly maps of a pass over images.

    Args:
        finite: for each batch whether its maps are, scalars on any device.
        stage: ``val``, ``test_curve`` or ``test``.
        epoch: how many were trained.
        way: out of it, for the user.

    Raises:
        NotFiniteError: naming the first batch.
    """
    found = torch.stack(list(finite)).tolist() if finite else []
    if not all(found):
        raise NotFiniteError(
            f"the anomaly maps of {stage} batch {found.index(False) + 1} have NaN or infinite "
            f"values after epoch {epoch}; {way}"
        )


def first_not_finite(values: Sequence[float]) -> int | None:
    """The place of the first NaN or infinity; None if there is none."""
    finite = torch.tensor(values).isfinite().tolist()
    return None if all(finite) else finite.index(False)


@contextmanager
def keeping_what_there_was(run_dir: Path, checkpoint: Path) -> Iterator[None]:
    """Leave ``failure.json``, with the losses, and say what else there is of a run that ends so.

    Args:
        run_dir: the run's folder.
        checkpoint: of its last finite state, if one was written.
    """
    try:
        yield
    except NotFiniteError as error:
        last = f", the last finite state in {checkpoint}" if checkpoint.is_file() else ""
        told = NotFiniteError(f"{error}; losses in {run_dir / FAILURE}{last}", error.details)
        write_failure(run_dir, told)
        raise told from error
