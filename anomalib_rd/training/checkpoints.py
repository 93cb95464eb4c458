"""Checkpoints: atomic writing, saving on signals, resuming."""

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
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from torch import Tensor

from anomalib_rd.data.fingerprint import TRAIN, combine_hashes, find_changed_files
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line, printable, write_atomically
from anomalib_rd.results.identity import RESUME_HINT, require_same_run, require_same_teacher
from anomalib_rd.results.sweeps import is_main_process
from anomalib_rd.training.module import DistillationModule

CHECKPOINT = "checkpoints/last.ckpt"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds after the first Ctrl-C or SIGTERM in which an epoch may end and be saved. Slurm kills a
# job 30 s after its SIGTERM, and torch's launcher its processes 30 s after a signal.
GRACE = 10.0
# A terminal sends Ctrl-C to each process of a DDP run, and torch's launcher repeats it.
SAME_SIGNAL = 1.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """Config, teacher and images of a run, as saved in its checkpoints and its record.

    Attributes:
        config: resolved, in plain types.
        config_digest: see `anomalib_rd.results.identity`.
        teacher_sha256: of the teacher's state.
        data_files: hashes of the images when the run began, see `data.fingerprint.hash_files`.
    """

    config: dict[str, Any]
    config_digest: str
    teacher_sha256: str
    data_files: dict[str, str]

    @property
    def data_fingerprint(self) -> str:
        """The fingerprint of the images."""
        return combine_hashes(self.data_files)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same folder and renames it; reads only plain types.

    Lightning writes into the system's temporary folder and moves the file: across disks this is
    a copy, which a killed process would not complete.

    Args:
        identity: of the run, saved in each checkpoint; None for an evaluation.
    """

    def __init__(self, identity: RunIdentity | None = None) -> None:
        super().__init__()
        self.identity = identity
        self._in_memory = False
        self._pending: tuple[Path, BytesIO] | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Write a checkpoint; a reader sees the old one or the complete new one."""
        if self.identity is not None:
            checkpoint = checkpoint | vars(self.identity)
            checkpoint["data_fingerprint"] = self.identity.data_fingerprint
        if self._in_memory:
            buffer = BytesIO()
            torch.save(checkpoint, buffer)
            self._pending = Path(path), buffer
            return
        self._write(Path(path), lambda file: torch.save(checkpoint, file))
        if self._pending is not None and self._pending[0] == Path(path):
            self._pending = None

    @contextmanager
    def buffered(self, in_memory: bool) -> Iterator[None]:
        """Save to memory within the block if ``in_memory``; `flush` writes it to the disk."""
        self._in_memory = in_memory
        try:
            yield
        finally:
            self._in_memory = False

    def flush(self) -> None:
        """Write the checkpoint that is only in memory, if there is one."""
        if self._pending is not None:
            path, buffer = self._pending
            self._write(path, lambda file: file.write(buffer.getbuffer()))
            self._pending = None

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint into host memory."""
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint

    def _write(self, path: Path, write: Callable[[BinaryIO], Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)


class LastCheckpoint(ModelCheckpoint):
    """Saves the last epoch, and at intervals an earlier one to resume from.

    On a GPU an epoch can be shorter than writing its checkpoint, so not every epoch is written.
    No finished epoch is lost when the training is stopped: after a first Ctrl-C or SIGTERM a short
    epoch ends and is saved; the state after a long epoch (`GRACE`) is held in memory, and written
    when a signal or an error ends the training. A second signal stops at once.

    Args:
        every_s: minimum seconds between two checkpoints; the last epoch is always written.
        **options: of ModelCheckpoint.
    """

    def __init__(self, every_s: float, **options: Any) -> None:
        super().__init__(save_on_train_epoch_end=True, **options)
        self.every_s, self.written, self.epoch_began = every_s, 0.0, 0.0
        # Epochs finished, and those that are on disk or held in memory.
        self.finished = self.saved = 0
        self.stop_signal: int | None = None
        self.signalled = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the first checkpoint, and handle signals."""
        super().on_train_start(trainer, pl_module)
        self.written = self.epoch_began = time.monotonic()
        self.finished = self.saved = trainer.current_epoch
        self.stop_signal = None
        if in_main_thread():
            # Lightning has set its own handlers by now, and restores the earlier ones at the end.
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    signal.signal(number, self._on_signal)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write a checkpoint if one is due, or at the end; stop after a signal."""
        self.finished += 1
        cancel_alarm()
        now = time.monotonic()
        due = (
            trainer.should_stop,
            trainer.current_epoch + 1 == trainer.max_epochs,
            trainer.global_step == trainer.max_steps,
            self.stop_signal is not None,
            now - self.written >= self.every_s,
        )
        long = now - self.epoch_began >= GRACE
        io = trainer.strategy.checkpoint_io
        # All processes must make the same decision, as saving is collective.
        write, hold, stop = trainer.strategy.broadcast((any(due), long, self.stop_signal))
        if write or hold:
            with io.buffered(not write) if isinstance(io, AtomicCheckpointIO) else nullcontext():
                super().on_train_epoch_end(trainer, pl_module)
            self.saved = self.finished
        if write:
            self.written = time.monotonic()
        self.epoch_began = time.monotonic()
        if stop is None and write:
            stop = self.stop_signal  # received while the checkpoint was written
        if stop is not None:
            self._exit(stop)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write the state of the last finished epoch if it is only in memory."""
        cancel_alarm()
        super().on_exception(trainer, pl_module, exception)
        io = trainer.strategy.checkpoint_io
        if trainer.is_global_zero and isinstance(io, AtomicCheckpointIO):
            try:
                io.flush()
            except OSError as error:  # must not hide the error that ended the run
                log.warning("the last finished epoch cannot be saved: %s", one_line(error))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if self.stop_signal is not None and now - self.signalled < SAME_SIGNAL:
            return
        if self.stop_signal is not None or self.saved == self.finished:
            self._exit(number)
        self.stop_signal, self.signalled = number, now
        signal.signal(signal.SIGALRM, lambda *_: self._exit(number))
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        if is_main_process():
            log.warning(
                "%s: stopping after epoch %s, in %g s at most; a second Ctrl-C stops at once",
                *(signal.Signals(number).name, self.finished + 1, GRACE),
            )

    @staticmethod
    def _exit(number: int) -> NoReturn:
        cancel_alarm()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def in_main_thread() -> bool:
    """Whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()


def cancel_alarm() -> None:
    """Cancel the time limit that follows a signal."""
    if in_main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def propagate_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process as usual, instead of by Lightning's own exits."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if in_main_thread() and callable(handler):
            signal.signal(signal.SIGINT, handler)  # Lightning ignores it by now
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        if isinstance(stop, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from stop
        raise


def epochs_in(checkpoint: Mapping[str, Any]) -> int:
    """Epochs trained when Lightning wrote the checkpoint; 0 if it was written without training."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    return int(progress["current"]["processed"])


def saved_epochs(run_dir: Path) -> int:
    """Epochs in the run's checkpoint, after which it resumes; 0 without a readable one."""
    try:
        path = run_dir / CHECKPOINT
        return epochs_in(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except Exception:  # missing, damaged or of another version: torch and zipfile raise their own
        return 0


def update_checkpoint(path: Path, state: Mapping[str, Tensor] | None = None, **values: Any) -> None:
    """Replace entries of a checkpoint's state dict, and values of the checkpoint itself."""
    # Memory-mapped, a checkpoint of any size is copied from file to file.
    old: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    new = {**old, **values}
    if state is not None:
        new["state_dict"] = old["state_dict"] | {name: v.cpu() for name, v in state.items()}
    elif all(old.get(name) == value for name, value in values.items()):
        return
    AtomicCheckpointIO().save_checkpoint(new, path)


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a run resumes from, and the epochs in it."""

    path: Path
    epoch: int


def find_resume_point(
    run_dir: Path, cfg: DictConfig, module: DistillationModule, identity: RunIdentity
) -> ResumePoint | None:
    """The checkpoint of an interrupted run, or None to start from the beginning.

    A checkpoint that is damaged, or does not fit the networks, is reported and ignored.

    Raises:
        UserError: config, training images or teacher differ from the checkpoint's.
    """
    path = run_dir / CHECKPOINT
    if not path.is_file():
        return None
    try:
        checkpoint = AtomicCheckpointIO().load_checkpoint(path)
        saved = RunIdentity(**{name: checkpoint[name] for name in vars(identity)})
        epoch, misfit = epochs_in(checkpoint), why_unfit(checkpoint, module)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        misfit = f"it is damaged or of another version ({one_line(error)[:100]})"
    if misfit is not None:
        if is_main_process():
            log.warning("%s can't be resumed: %s; the run starts from the beginning", path, misfit)
        return None
    require_same_run(run_dir, cfg, saved.config, saved.config_digest)
    require_same_images(path, saved.data_files, identity.data_files)
    require_same_teacher(
        path,
        saved.teacher_sha256,
        identity.teacher_sha256,
        saved.config["model"]["teacher"],
        cfg.model.teacher,
        RESUME_HINT,
    )
    return ResumePoint(path, epoch)


def require_same_images(path: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise UserError if training images changed, by their `hash_files`; warn about test images."""
    trained, others = find_changed_files(before, now)
    if trained:
        count = sum(name.partition("\0")[0] == TRAIN for name in before.keys() | now.keys())
        raise UserError(
            f"{path}: {len(trained)} of {count} training images were added, removed or changed"
            f" since the run was interrupted, such as {printable(trained[0])}; restore them, or to"
            " start again choose another folder (hydra.run.dir=...) or remove the checkpoint"
        )
    if others and is_main_process():
        log.warning(
            "%s: %d test images or masks were added, removed or changed since the run was"
            " interrupted, such as %s; the metrics will be of the current files",
            path,
            len(others),
            printable(others[0]),
        )


def why_unfit(checkpoint: Mapping[str, Any], module: DistillationModule) -> str | None:
    """Why the checkpoint does not fit the module; None if it does."""
    if not checkpoint["random_states"] or not checkpoint.get("optimizer_states"):
        return "it has no training state"
    saved = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    own = {name: tuple(value.shape) for name, value in module.state_without_teacher().items()}
    wrong = sorted(name for name in saved.keys() | own.keys() if saved.get(name) != own.get(name))
    return f"its networks differ ({wrong[0]})" if wrong else None
