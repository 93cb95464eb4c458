"""Checkpoints that are whole or not there, and the one that a run goes on from."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig
from torch import Tensor

from anomalib_rd.data.fingerprint import TRAIN, find_changed_files
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, printable, write_atomically
from anomalib_rd.results.identity import RESUME_HINT, require_same_run, require_same_teacher
from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.training.module import DistillationModule

CHECKPOINT = "checkpoints/last.ckpt"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds that the first Ctrl-C or SIGTERM leaves for an epoch to end and be saved. Slurm kills a
# job 30 s after its SIGTERM, and torch's launcher its processes 30 s after a signal.
GRACE = 10.0
# A terminal sends Ctrl-C to each process of a DDP run, and torch's launcher sends it once more.
SAME_SIGNAL = 1.0  # seconds

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint and renames; reads tensors and plain types alone.

    Lightning writes into the system's temporary folder and moves: from another disk that is a
    copy, which a killed process leaves half done.

    """

    def __init__(self) -> None:
        super().__init__()
        self._in_memory = False
        self._held: tuple[Path, BytesIO] | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Write a checkpoint so that whoever looks sees the old one or the whole new one."""
        if self._in_memory:
            buffer = BytesIO()
            torch.save(checkpoint, buffer)
            self._held = Path(path), buffer
            return
        self._write(Path(path), lambda file: torch.save(checkpoint, file))
        if self._held is not None and self._held[0] == Path(path):
            self._held = None

    @contextmanager
    def holding(self, in_memory: bool) -> Iterator[None]:
        """Hold what the block saves in memory, until `write_held` or the next one of its path."""
        self._in_memory = in_memory
        try:
            yield
        finally:
            self._in_memory = False

    def write_held(self) -> None:
        """Write the checkpoint that is held in memory, if there is one."""
        if self._held is not None:
            path, buffer = self._held
            self._write(path, lambda file: file.write(buffer.getbuffer()))
            self._held = None

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint into host memory."""
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found

    def _write(self, path: Path, write: Callable[[BinaryIO], Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last epoch, and on the way there an earlier one to go on from.

    On a GPU an epoch can be shorter than the writing of its checkpoint, so not every epoch has
    one. Still no finished epoch is lost when the training is stopped: a first Ctrl-C or SIGTERM
    lets a short epoch end and saves it; after a long epoch (`GRACE`) its state is held in memory,
    and written when the training ends by a signal or an error. A second signal stops at once.

    Args:
        every_s: least seconds from one checkpoint to the next; the last epoch's is always written.
        **options: of ModelCheckpoint.
    """

    def __init__(self, every_s: float, **options: Any) -> None:
        super().__init__(save_on_train_epoch_end=True, **options)
        self.every_s, self.written, self.epoch_began = every_s, 0.0, 0.0
        # Epochs finished, and those that are on disk or held in memory.
        self.finished = self.kept = 0
        self.stop_signal: int | None = None
        self.signalled = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first checkpoint is due when that much has been trained."""
        super().on_train_start(trainer, pl_module)
        self.written = self.epoch_began = time.monotonic()
        self.finished = self.kept = trainer.current_epoch
        self.stop_signal = None
        if in_main_thread():
            # Lightning has set its own handlers by now, and restores the earlier ones at the end.
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    signal.signal(number, self._on_signal)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write a checkpoint if it is time to, or the end; stop if a signal asked for it."""
        self.finished += 1
        cancel_alarm()
        now = time.monotonic()
        ends = (
            trainer.should_stop,
            trainer.current_epoch + 1 == trainer.max_epochs,
            trainer.global_step == trainer.max_steps,
            self.stop_signal is not None,
            now - self.written >= self.every_s,
        )
        long = now - self.epoch_began >= GRACE
        io = trainer.strategy.checkpoint_io
        # Every process must come to the same decision: saving takes all of them.
        write, hold, stop = trainer.strategy.broadcast((any(ends), long, self.stop_signal))
        if write or hold:
            with io.holding(not write) if isinstance(io, AtomicCheckpointIO) else nullcontext():
                super().on_train_epoch_end(trainer, pl_module)
            self.kept = self.finished
        if write:
            self.written = time.monotonic()
        self.epoch_began = time.monotonic()
        if stop is None and write:
            stop = self.stop_signal  # came while the checkpoint was written
        if stop is not None:
            self._leave(stop)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write the state of the last finished epoch, if it is in memory alone."""
        cancel_alarm()
        super().on_exception(trainer, pl_module, exception)
        io = trainer.strategy.checkpoint_io
        if trainer.is_global_zero and isinstance(io, AtomicCheckpointIO):
            try:
                io.write_held()
            except OSError as error:  # not to hide what the run ended by
                log.warning("the last finished epoch cannot be saved: %s", one_line(error))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if self.stop_signal is not None and now - self.signalled < SAME_SIGNAL:
            return
        if self.stop_signal is not None or self.kept == self.finished:
            self._leave(number)
        self.stop_signal, self.signalled = number, now
        signal.signal(signal.SIGALRM, lambda *_: self._leave(number))
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        if is_main_process():
            log.warning(
                "%s: stopping after epoch %s, in %g s at most; a second Ctrl-C stops at once",
                *(signal.Signals(number).name, self.finished + 1, GRACE),
            )

    @staticmethod
    def _leave(number: int) -> NoReturn:
        cancel_alarm()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def in_main_thread() -> bool:
    """Whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()


def cancel_alarm() -> None:
    """Take back the time limit of a signal's grace."""
    if in_main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)


def saved_epochs(run_dir: Path) -> int:
    """Epochs that the run's checkpoint has behind it: where it goes on; 0 if there is none."""
    try:
        path = run_dir / CHECKPOINT
        return epochs_behind(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except Exception:  # missing, damaged or of another version: torch and zipfile raise their own
        return 0


def keep(path: Path, **facts: Any) -> None:
    """Put plain values into a checkpoint; all else in it stays as it is.

    Raises:
        OSError: the file cannot be written.
    """
    # Mapped: whatever its size, it goes from file to file.
    kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if any(kept.get(name) != value for name, value in facts.items()):
        AtomicCheckpointIO().save_checkpoint({**kept, **facts}, path)


def keep_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Put tensors that training has not made into a checkpoint's state.

    Raises:
        OSError: the file cannot be written.
    """
    kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    own = {**kept["state_dict"], **{name: value.cpu() for name, value in state.items()}}
    AtomicCheckpointIO().save_checkpoint({**kept, "state_dict": own}, path)


@dataclass(frozen=True)
class Restart:
    """Where a run goes on: the checkpoint and the epochs that it has behind it."""

    path: Path
    epoch: int


def find_restart(run_dir: Path, cfg: DictConfig, module: DistillationModule) -> Restart | None:
    """The checkpoint that a run was cut off with, or None to start anew.

    One that is damaged, or does not fit the networks of this version, gets a warning.

    Args:
        run_dir: the run's folder.
        cfg: its config.
        module: made from the config.

    Raises:
        UserError: the checkpoint is of another config, other training images or another teacher.
    """
    path = run_dir / CHECKPOINT
    if not path.is_file():
        return None
    try:
        kept = AtomicCheckpointIO().load_checkpoint(path)
        config, digest, epoch = kept["config"], kept["config_digest"], epochs_behind(kept)
        misfit = why_unfit(kept, module)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        misfit = f"it is damaged or of another version ({one_line(error)[:100]})"
    else:
        if misfit is None:
            require_same_run(run_dir, cfg, config, digest)
            require_same_images(path, kept.get("data_files") or {}, module.data_files)
            require_same_teacher(
                path,
                kept.get("teacher_sha256"),
                module.teacher_sha256,
                config["model"]["teacher"],
                cfg.model.teacher,
                RESUME_HINT,
            )
            return Restart(path, epoch)
    if is_main_process():
        log.warning("%s can't be resumed: %s; the run starts anew", path, misfit)
    return None


def require_same_images(path: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with other training images; other test images get a warning.

    Args:
        path: the checkpoint.
        before: what it was trained on, of `hash_files`; empty where it does not tell.
        now: what is on disk.

    Raises:
        UserError: training images were added, removed or altered.
    """
    if not before or not now:
        return
    trained, others = find_changed_files(before, now)
    if trained:
        count = sum(name.partition("\0")[0] == TRAIN for name in before.keys() | now.keys())
        raise UserError(
            f"{path}: the data fingerprint differs: {len(trained)} of {count} training images were"
            f" added, removed or altered since the run was cut off, such as"
            f" {printable(trained[0])}; put them back, or take another folder (hydra.run.dir=...)"
            " or remove the checkpoint to train anew"
        )
    if others and is_main_process():
        log.warning(
            "%s: %d test images or masks were added, removed or altered since the run was cut off, "
            "such as %s; the metrics will be of what is there now",
            path,
            len(others),
            printable(others[0]),
        )


def epochs_behind(checkpoint: Mapping[str, Any]) -> int:
    """Epochs trained before Lightning wrote the checkpoint; 0 for one written without training."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    return int(progress["current"]["processed"])


def why_unfit(checkpoint: Mapping[str, Any], module: DistillationModule) -> str | None:
    """Why the checkpoint does not fit the module, None if it does."""
    if not checkpoint["randomness"] or not checkpoint.get("optimizer_states"):
        return "it holds no state of a training"
    kept = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    own = {name: tuple(value.shape) for name, value in module.own_state().items()}
    wrong = sorted(name for name in kept.keys() | own.keys() if kept.get(name) != own.get(name))
    return f"its networks are others ({wrong[0]})" if wrong else None
