"""The layout that most datasets share: a folder for each category, in it train, test and masks."""

from collections.abc import Iterable
from pathlib import Path

from anomalib_rd.data.source import (
    GOOD,
    Sample,
    Split,
    check_category,
    named_folders,
    pair_masks,
    root_folder,
)
from anomalib_rd.data.walk import distinct_subfolders, list_images, subfolders, why_no_images
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import printable


class CategoryFolders:
    """Dataset with ``root/<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    Categories and defect types are read from disk: any dataset in the layout will do.

    Args:
        root: the folder that holds the categories.
        textures: the categories that form the texture group; all others are objects.

    Attributes:
        title: what the dataset is called.
        page: where to get it.
        train: the folders of normal images to train on, below the category.
        test: the folder with one folder for each defect type and one of normal images.
        masks: the folder with the masks, one folder for each defect type.
        good: what the folder of normal test images is called.
    """

    title = "the dataset"
    page = ""
    train: tuple[str, ...] = ("train/good",)
    test = "test"
    masks = "ground_truth"
    good = GOOD

    def __init__(self, root: str | Path, textures: Iterable[str] = ()) -> None:
        self.root = root_folder(root)
        self.textures = frozenset(textures)

    def categories(self) -> list[str]:
        """Subfolders of the root with a folder of training images, sorted.

        Raises:
            UserError: no root, or no category in it.
        """
        if not self.root.is_dir():
            raise UserError(
                f"dataset folder {self.root} does not exist; set data.root to where {self.title}"
                f" is, or get it: {self.how_to_get()}"
            )
        names = named_folders(self.root, self._is_category)
        if not names:
            raise UserError(f"no category in {self.root}: {self._hint()}")
        return names

    def split(self, category: str) -> Split:
        """The samples of ``category``: defect types and files by name.

        Raises:
            UserError: no such category, no training or test images, or a mask without its image.
        """
        check_category(category, self.categories(), self.root)
        folder = self.root / category
        train = [path for part in self.train for path in self._train_images(folder / part)]
        home, masks = folder / self.test, folder / self.masks
        if not home.is_dir():
            raise UserError(f"no folder {home}; put test images in {self.test}/<defect type>")
        # In MVTec AD 2 the masks' folder lies among the defect types.
        kinds = [path for path in distinct_subfolders(home) if path != masks]
        test = [sample for kind in kinds for sample in self._test_samples(kind, masks, category)]
        if not test:
            raise UserError(
                f"no images in the folders of {home}{why_no_images(home)};"
                f" put normal ones in {self.good}, defect ones in a folder for each defect type"
            )
        self._check_mask_folders(home, masks)
        return Split([Sample(path, category, GOOD, 0) for path in train], test)

    def places(self, category: str) -> list[Path]:
        """The folders that hold the category's files, to look for what is left out."""
        return [self.root / category]

    def ignored(self, category: str) -> list[Path]:
        """Folders of images that the data set has and that are not used here."""
        return [self.root / category / self.masks / self.good]

    def how_to_get(self) -> str:
        """Where the dataset comes from: an address or a command."""
        return self.page

    def pair(self, images: Iterable[Path], folder: Path, masks: Path) -> dict[Path, Path]:
        """The masks of the images in ``folder``, a defect type's.

        Raises:
            UserError: a mask without its image.
        """
        return pair_masks(images, folder, masks)

    def _train_images(self, folder: Path) -> list[Path]:
        images = list_images(folder)
        if not images:
            raise UserError(
                f"no training images in {folder}{why_no_images(folder)}; put normal images there"
            )
        return images

    def _test_samples(self, folder: Path, masks: Path, category: str) -> list[Sample]:
        images = list_images(folder)
        if folder.name == self.good:
            return [Sample(path, category, GOOD, 0) for path in images]
        pairs = self.pair(images, folder, masks / folder.name)
        defect = printable(folder.name)
        return [Sample(path, category, defect, 1, pairs.get(path)) for path in images]

    def _check_mask_folders(self, test: Path, masks: Path) -> None:
        """Masks of a defect type that has no test folder: a renamed or forgotten folder."""
        if not masks.is_dir():
            return
        for folder in distinct_subfolders(masks):
            if folder.name != self.good and not (test / folder.name).is_dir():
                self.pair([], test / folder.name, folder)

    def _is_category(self, folder: Path) -> bool:
        return (folder / self.train[0]).is_dir()

    def _hint(self) -> str:
        if self._is_category(self.root):
            root = self.root.resolve()
            return f"it is a category itself; set data.root={root.parent} data.category={root.name}"
        for inner in subfolders(self.root):
            if any(self._is_category(path) for path in subfolders(inner)):
                return f"they lie one folder deeper; set data.root={inner}"
        return (
            f"expected <category>/{self.train[0]}; set data.root to where {self.title} is,"
            f" or get it: {self.how_to_get()}"
        )


class WithValidation(CategoryFolders):
    """`CategoryFolders` with normal images set apart in ``validation/good``.

    Args:
        root: the folder that holds the categories.
        textures: the categories that form the texture group; all others are objects.
        train_on_validation: whether to train on them too; without it they are not used at all.
    """

    validation = "validation/good"

    def __init__(
        self, root: str | Path, textures: Iterable[str] = (), train_on_validation: bool = False
    ) -> None:
        super().__init__(root, textures)
        self.train_on_validation = train_on_validation
        if train_on_validation:
            self.train = (*self.train, self.validation)

    def ignored(self, category: str) -> list[Path]:
        """As of `CategoryFolders`; without ``train_on_validation`` the validation images too."""
        return [*super().ignored(category), self.root / category / self.validation]
