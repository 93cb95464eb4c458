"""The user's own images: folders of normal images, of defect images, and of masks."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from anomalib_rd.data.sources.files import explain_no_images, list_images
from anomalib_rd.data.sources.source import (
    GOOD,
    Sample,
    Split,
    category_names,
    pair_masks,
    require_category,
    root_folder,
)
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import expand_home, printable


class Folder:
    """Data set of ``normal``, ``defect`` and ``masks`` folders.

    If the root contains a ``normal`` folder, it is one category; otherwise each subfolder with a
    ``normal`` folder is one. Categories have the name of their folder. Subfolders of ``defect``
    are defect types; images directly in it have the type "defect". A mask is below ``masks`` at
    its image's relative path, with the same stem or the stem and ``_mask``; it may be missing.

    Args:
        root: folder of the category or categories.
        normal: folder of normal images, including its subfolders.
        defect: folder of defect images; None: no defect images.
        masks: folder of masks; None: no masks.
        normal_test: folder of normal test images; None: hold out a part of ``normal``.
        normal_test_share: fraction of ``normal`` to hold out, in (0, 1). Files are selected by the
            hash of their relative path, so that new files do not move the others.
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
                " it is the fraction of the normal images held out for the test, such as 0.2"
            )
        self.root = root_folder(root)
        self.normal = str(expand_home(normal))
        self.defect, self.masks, self.normal_test = (
            None if name is None else str(expand_home(name))
            for name in (defect, masks, normal_test)
        )
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
        names = category_names(self.root, lambda path: (path / self.normal).is_dir())
        if not names:
            raise UserError(
                f"no folder {self.root / self.normal}, nor one in a folder below {self.root};"
                " put normal images there, or set data.source.normal to the folder's name"
            )
        return names

    def split(self, category: str) -> Split:
        """The samples of ``category``: normal images, then defects, by relative path.

        Raises:
            UserError: no such category, too few images, or a mask without image.
        """
        require_category(category, self.categories(), self.root)
        folder = self._category_folder(category)
        train, test = self._normal_images(folder)
        defects = self._defect_samples(folder, category)
        self._check_roles([*train, *test], defects)
        return Split(
            [Sample(path, category, GOOD, 0) for path in train],
            [Sample(path, category, GOOD, 0) for path in test] + defects,
        )

    def folders(self, category: str) -> list[Path]:
        """The folders that contain the category's images, see `find_unused`."""
        parts = (self.normal, self.normal_test, self.defect, self.masks)
        return [self._category_folder(category) / part for part in parts if part is not None]

    def _category_folder(self, category: str) -> Path:
        single = (self.root / self.normal).is_dir()
        return self.root if single else self.root / category

    def _normal_images(self, folder: Path) -> tuple[list[Path], list[Path]]:
        normal = folder / self.normal
        images = list_images(normal, recursive=True)
        if self.normal_test is None:
            test = select_test_images(images, normal, self.normal_test_share)
            train = sorted(set(images) - set(test))
        else:
            normal = folder / self.normal_test
            test = list_images(normal, recursive=True)
            if not test:
                reason = explain_no_images(normal, recursive=True)
                raise UserError(f"no images in {normal}{reason} (data.source.normal_test)")
            # One of the two folders may contain the other.
            tested = set(_real_paths(test))
            real = zip(images, _real_paths(images), strict=True)
            train = [path for path, real_path in real if real_path not in tested]
        if not (train and test):
            raise UserError(
                f"{len(images)} normal images in {folder / self.normal}"
                f"{explain_no_images(folder / self.normal, True)}: too few to train and test on;"
                " add some (at least 2, or set data.source.normal_test to a folder of normal test"
                " images)"
            )
        return train, test

    def _defect_samples(self, folder: Path, category: str) -> list[Sample]:
        if self.defect is None:
            return []
        defect_folder = folder / self.defect
        images = list_images(defect_folder, recursive=True)
        if not images:
            raise UserError(
                f"no images in {defect_folder}{explain_no_images(defect_folder, True)}; put defect"
                " images there, or set data.source.defect to the folder's name (null if there are"
                " no defect images)"
            )
        masks = pair_masks(images, defect_folder, folder / self.masks) if self.masks else {}
        samples = []
        for path in images:
            parents = path.relative_to(defect_folder).parts[:-1]
            if parents and parents[0] == GOOD:
                raise UserError(
                    f"{defect_folder / GOOD}: '{GOOD}' is the name of normal images; rename the"
                    " folder"
                )
            defect = printable(parents[0]) if parents else "defect"
            samples.append(Sample(path, category, defect, 1, masks.get(path)))
        return samples

    def _check_roles(self, normal: list[Path], defects: list[Sample]) -> None:
        """Raise UserError if a file has two roles, because one folder contains another."""
        roles: dict[Path, str] = {}
        for role, paths in (
            ("normal", normal),
            ("defect", [sample.path for sample in defects]),
            ("masks", [sample.mask for sample in defects if sample.mask is not None]),
        ):
            for path, real in zip(paths, _real_paths(paths), strict=True):
                first = roles.setdefault(real, role)
                if first != role:
                    raise UserError(
                        f"{path} is in the folders of data.source.{first} and data.source.{role}:"
                        f" '{getattr(self, first)}' and '{getattr(self, role)}'; choose folders"
                        " that share no file"
                    )


def _real_paths(paths: Iterable[Path]) -> list[Path]:
    """The paths with links in their folders resolved, so that equal paths are one file."""
    resolve = cache(Path.resolve)
    return [resolve(path.parent) / path.name for path in paths]


def select_test_images(images: list[Path], folder: Path, share: float) -> list[Path]:
    """About ``share`` of ``images``, at least one and not all, by the hash of the relative path."""
    if len(images) < 2:
        return []

    def hash_fraction(path: Path) -> float:
        name = path.relative_to(folder).as_posix().encode(errors="surrogateescape")
        return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64

    count = sum(hash_fraction(path) < share for path in images)
    count = min(max(count, 1), len(images) - 1)
    return sorted(sorted(images, key=hash_fraction)[:count])
