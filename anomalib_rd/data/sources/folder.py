"""A free layout for one's own images: a folder of normal ones, one of defects, one of masks."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from anomalib_rd.data.sources.files import explain_no_images, list_images
from anomalib_rd.data.sources.source import (
    GOOD,
    Sample,
    Split,
    named_folders,
    pair_masks,
    require_category,
    root_folder,
)
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import expand_home, printable


class Folder:
    """Dataset of ``normal``, ``defect`` and ``masks`` folders.

    The root is one category, named as its folder, when it holds a ``normal`` folder; otherwise
    every subfolder that does is one. Images directly in ``defect`` are of the type "defect", its
    subfolders are defect types. A mask lies below ``masks`` at its image's relative path, under
    the same stem or the stem and ``_mask``; masks may lack.

    Args:
        root: the folder of the one category or of the categories.
        normal: folder of normal images, searched with its subfolders.
        defect: folder of defect images; None when there are none (no defects to test on).
        masks: folder of masks; None when there are none.
        normal_test: folder of normal test images; None to hold back a share of ``normal``.
        normal_test_share: the share of ``normal`` held back, in (0, 1). A file is chosen by the
            hash of its relative path, so files added later do not move the others.
        textures: the categories that form the texture group; all others are objects.
    """

    def __init__(
        self,
        root: str | Path,
        normal: str = "normal",
        defect: str | None = "defect",
        masks: str | None = "masks",
        normal_test: str | None = None,
        normal_test_share: float = 0.2,
        textures: Iterable[str] = (),
    ) -> None:
        if not 0 < normal_test_share < 1:
            raise UserError(
                f"data.source.normal_test_share={normal_test_share} is not between 0 and 1;"
                " it is the share of the normal images held back for the test, such as 0.2"
            )
        self.root = root_folder(root)
        self.normal = str(expand_home(normal))
        self.defect = expanded(defect)
        self.masks = expanded(masks)
        self.normal_test = expanded(normal_test)
        self.normal_test_share = normal_test_share
        self.textures = frozenset(textures)

    def categories(self) -> list[str]:
        """The root's own name, or its subfolders with a ``normal`` folder, sorted.

        Raises:
            UserError: no root, or no ``normal`` folder in it or one below it.
        """
        if not self.root.is_dir():
            raise UserError(f"dataset folder {self.root} does not exist; set data.root")
        if (self.root / self.normal).is_dir():
            return [printable(self.root.resolve().name)]
        names = named_folders(self.root, lambda path: (path / self.normal).is_dir())
        if not names:
            raise UserError(
                f"no folder {self.root / self.normal}, nor one in a folder below {self.root};"
                " put normal images there, or set data.source.normal to what the folder is called"
            )
        return names

    def split(self, category: str) -> Split:
        """The samples of ``category``: normal images, then defects, by relative path.

        Raises:
            UserError: no such category, too few images, or a mask without its image.
        """
        require_category(category, self.categories(), self.root)
        folder = self._home(category)
        train, held_back = self._normal(folder)
        defects = self._defects(folder, category)
        self._check_roles([*train, *held_back], defects)
        return Split(
            [Sample(path, category, GOOD, 0) for path in train],
            [Sample(path, category, GOOD, 0) for path in held_back] + defects,
        )

    def places(self, category: str) -> list[Path]:
        """The folders that hold the category's images, to look for what is left out."""
        home = self._home(category)
        parts = (self.normal, self.normal_test, self.defect, self.masks)
        return [home / part for part in parts if part is not None]

    def _home(self, category: str) -> Path:
        single = (self.root / self.normal).is_dir()
        return self.root if single else self.root / category

    def _normal(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Normal images to train on and to test on."""
        home = folder / self.normal
        images = list_images(home, recursive=True)
        if self.normal_test is not None:
            test = list_images(folder / self.normal_test, recursive=True)
            if not test:
                home = folder / self.normal_test
                why = explain_no_images(home, recursive=True)
                raise UserError(f"no images in {home}{why} (data.source.normal_test)")
            # The one folder may lie in the other.
            tested = set(real_paths(test))
            train = [
                path
                for path, real in zip(images, real_paths(images), strict=True)
                if real not in tested
            ]
        else:
            test = hold_back(images, home, self.normal_test_share)
            train = sorted(set(images) - set(test))
        if not (train and test):
            raise UserError(
                f"{len(images)} normal images in {home}{explain_no_images(home, True)}: too few to"
                " train and test on; add some (at least 2, or set data.source.normal_test to a"
                " folder of normal test images)"
            )
        return train, test

    def _defects(self, folder: Path, category: str) -> list[Sample]:
        if self.defect is None:
            return []
        home = folder / self.defect
        images = list_images(home, recursive=True)
        if not images:
            raise UserError(
                f"no images in {home}{explain_no_images(home, True)}; put defect images there, or set"
                " data.source.defect to what the folder is called (null if there are no defect"
                " images)"
            )
        masks = pair_masks(images, home, folder / self.masks) if self.masks is not None else {}
        samples = []
        for path in images:
            parents = path.relative_to(home).parts[:-1]
            if parents and parents[0] == GOOD:
                raise UserError(
                    f"{home / GOOD}: '{GOOD}' is the name of normal images; rename the folder"
                )
            defect = printable(parents[0]) if parents else "defect"
            samples.append(Sample(path, category, defect, 1, masks.get(path)))
        return samples

    def _check_roles(self, normal: list[Path], defects: list[Sample]) -> None:
        """Refuse a file that is found in two roles, as where one folder lies in another.

        Raises:
            UserError: naming the file and both folders.
        """
        roles: dict[Path, str] = {}
        for part, paths in (
            ("normal", normal),
            ("defect", [sample.path for sample in defects]),
            ("masks", [sample.mask for sample in defects if sample.mask is not None]),
        ):
            for path, real in zip(paths, real_paths(paths), strict=True):
                other = roles.setdefault(real, part)
                if other != part:
                    raise UserError(
                        f"{path} lies in the folders of data.source.{other} and"
                        f" data.source.{part}: '{getattr(self, other)}' and"
                        f" '{getattr(self, part)}'; name folders that share no file"
                    )


def expanded(folder: str | None) -> str | None:
    """A folder's name with ``~`` replaced by the user's home folder."""
    return None if folder is None else str(expand_home(folder))


def real_paths(paths: Iterable[Path]) -> list[Path]:
    """The paths with links among their folders resolved, so that equal ones are the same file."""
    resolve = cache(Path.resolve)
    return [resolve(path.parent) / path.name for path in paths]


def hold_back(images: list[Path], folder: Path, share: float) -> list[Path]:
    """About ``share`` of ``images``, at least one and not all, chosen by hash of relative path."""
    if len(images) < 2:
        return []

    def name(path: Path) -> bytes:
        return path.relative_to(folder).as_posix().encode(errors="surrogateescape")

    def draw(path: Path) -> float:
        digest = hashlib.sha256(name(path)).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    by_draw = sorted(images, key=draw)
    count = sum(draw(path) < share for path in images)
    return sorted(by_draw[: min(max(count, 1), len(images) - 1)])
