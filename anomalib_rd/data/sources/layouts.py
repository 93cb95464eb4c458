"""The folder layouts of published data sets: MVTec AD and those like it, and VisA."""

import csv
from collections.abc import Iterable
from pathlib import Path

from anomalib_rd.data.sources.files import (
    distinct_subfolders,
    explain_no_images,
    list_images,
    subfolders,
)
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
        require_category(category, self.categories(), self.root)
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
                f"no images in the folders of {home}{explain_no_images(home)};"
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
                f"no training images in {folder}{explain_no_images(folder)}; put normal images there"
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


MVTEC_TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood"})
MVTEC_OBJECTS = frozenset({"bottle", "cable", "capsule", "hazelnut", "metal_nut"}) | frozenset(
    {"pill", "screw", "toothbrush", "transistor", "zipper"}
)


def download_command(root: Path) -> str:
    """The command that puts MVTec AD into ``root``."""
    return f"anomalib-rd data download --root {root} --accept-license"


class MVTecAD(CategoryFolders):
    """Dataset with ``root/<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    Categories and defect types are read from disk: any dataset in this layout will do. The mask
    of ``test/<defect>/000.png`` is ``ground_truth/<defect>/000_mask.png``; it may lack.

    Args:
        root: the folder that holds the categories.
        textures: the categories that form the texture group; all others are objects.
    """

    title = "MVTec AD"

    def __init__(self, root: str | Path, textures: Iterable[str] = MVTEC_TEXTURES) -> None:
        super().__init__(root, textures)

    def how_to_get(self) -> str:
        """The command that downloads it."""
        return download_command(self.root)


class BTAD(CategoryFolders):
    """beanTech Anomaly Detection: products ``01``, ``02``, ``03``, normal ones called ``ok``.

    ``root/<product>/{train/ok, test/ok, test/ko, ground_truth/ko}``; root is the archive's folder
    ``BTech_Dataset_transformed``. A mask has its image's name, not always its ending (bmp, png).
    Of the published masks 11 are empty (1 in 02, 10 in 03). The layout is that of the authors'
    archive, https://avires.dimi.uniud.it/papers/btad/btad.zip, as anomalib's ``BTechDataset``
    reads it.
    """

    title = "BTAD"
    page = "https://avires.dimi.uniud.it/papers/btad/btad.zip"
    train = ("train/ok",)
    good = "ok"


class MPDD(CategoryFolders):
    """Metal Parts Defect Detection: six categories of painted metal parts, in MVTec AD's layout.

    The authors' page is https://github.com/stepanje/MPDD; the layout is that of their archive, as
    anomalib's ``MPDDDataset`` reads it.
    """

    title = "MPDD"
    page = "https://github.com/stepanje/MPDD"


class MVTecLOCO(WithValidation):
    """MVTec LOCO AD: five categories with logical and structural anomalies.

    ``root/<category>/{train/good, validation/good, test/{good, logical_anomalies,
    structural_anomalies}}``. An image has a folder of masks, one for each defect:
    ``ground_truth/<kind>/000/{000.png, 001.png, ...}``. They are united; a mask's value names the
    type of defect, so all but 0 is defect. The authors' own metric, sPRO, weighs regions by that
    type and is not computed here.

    The layout is that of https://www.mvtec.com/company/research/datasets/mvtec-loco, as anomalib's
    ``MVTecLOCODataset`` reads it.
    """

    title = "MVTec LOCO AD"
    page = "https://www.mvtec.com/company/research/datasets/mvtec-loco"

    def pair(self, images: Iterable[Path], folder: Path, masks: Path) -> dict[Path, Path]:
        """The folders of masks of the images in ``folder``.

        Raises:
            UserError: a folder of masks without its image.
        """
        return pair_masks(images, folder, masks, subfolders(masks) if masks.is_dir() else [])


class MVTecAD2(WithValidation):
    """MVTec AD 2: eight categories, tested under changed lighting too.

    ``root/<category>/{train/good, validation/good, test_public/{good, bad}}``; the mask of
    ``test_public/bad/000_regular.png`` is
    ``test_public/ground_truth/bad/000_regular_mask.png``.

    The test here is ``test_public``. ``test_private`` and ``test_private_mixed``, on which the
    published results stand, have no public labels and are not used: the authors' server,
    https://benchmark.mvtec.com, judges anomaly maps sent to it.

    The layout is that of https://www.mvtec.com/company/research/datasets/mvtec-ad-2, as anomalib's
    ``MVTecAD2Dataset`` reads it.
    """

    title = "MVTec AD 2"
    page = "https://www.mvtec.com/company/research/datasets/mvtec-ad-2"
    test = "test_public"
    masks = "test_public/ground_truth"

    def ignored(self, category: str) -> list[Path]:
        """As of `WithValidation`, and the test images without public labels."""
        private = ("test_private", "test_private_mixed")
        return [*super().ignored(category), *(self.root / category / name for name in private)]


VISA_URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA.tar"
SPLIT = Path("split_csv", "1cls.csv")
COLUMNS = ("object", "split", "label", "image", "mask")


class VisA:
    """Visual Anomaly dataset: twelve objects, parted by the authors' ``split_csv/1cls.csv``.

    Its rows, ``object,split,label,image,mask``, name images and masks below the root, such as
    ``candle/Data/Images/Normal/0000.JPG``, ``candle/Data/Images/Anomaly/000.JPG`` and
    ``candle/Data/Masks/Anomaly/000.png``. In a mask, 1 to 9 name the type of defect and 0 is
    normal; an image may show several types, so all its defects are of the one type "anomaly".
    Objects whose folder is not there are left out.

    The layout is that of the authors' archive, https://github.com/amazon-science/spot-diff; what
    their ``prepare_data.py`` makes of it is in MVTec AD's layout.

    Args:
        root: the folder that holds ``split_csv`` and the objects.
        textures: the objects that form the texture group; the authors name none.
    """

    def __init__(self, root: str | Path, textures: Iterable[str] = ()) -> None:
        self.root = root_folder(root)
        self.textures = frozenset(textures)

    def categories(self) -> list[str]:
        """The objects of the split file whose folder is there, sorted.

        Raises:
            UserError: no root, no split file or another kind of file, or none of its objects.
        """
        return self._objects(self._rows())

    def split(self, category: str) -> Split:
        """The samples of ``category``: normal images, then anomalies, by path.

        Raises:
            UserError: no such object, a row that is none, an anomaly to train on, or no images.
        """
        rows = self._rows()
        require_category(category, self._objects(rows), self.root)
        parts: dict[str, list[Sample]] = {"train": [], "test": []}
        for line, row in enumerate(rows, start=2):
            if row["object"] == category:
                if row["split"] not in parts or row["label"] not in ("normal", "anomaly"):
                    raise self._bad_row(line, "expected train or test, normal or anomaly")
                if (row["split"], row["label"]) == ("train", "anomaly"):
                    raise self._bad_row(line, "an anomaly to train on")
                parts[row["split"]].append(self._sample(row))
        if not all(parts.values()):
            raise UserError(f"{self.root / SPLIT} has no train or no test images of {category}")
        return Split(*(sorted(p, key=lambda s: (s.label, s.path)) for p in parts.values()))

    def _sample(self, row: dict[str, str]) -> Sample:
        path = self.root / row["image"]
        if row["label"] == "normal":
            return Sample(path, row["object"], GOOD, 0)
        mask = self.root / row["mask"] if row["mask"] else None
        return Sample(path, row["object"], "anomaly", 1, mask)

    def _rows(self) -> list[dict[str, str]]:
        """The rows of the split file, read anew."""
        file = self.root / SPLIT
        if not file.is_file():
            raise UserError(f"no {file}; {self._hint()}")
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, restval="")
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise UserError(f"{file} lacks columns of: {','.join(COLUMNS)}; restore the file")
            return list(reader)

    def _objects(self, rows: list[dict[str, str]]) -> list[str]:
        names = sorted({row["object"] for row in rows if (self.root / row["object"]).is_dir()})
        if not names:
            raise UserError(f"none of the objects of {self.root / SPLIT} is in {self.root}")
        return names

    def _bad_row(self, line: int, what: str) -> UserError:
        return UserError(f"{self.root / SPLIT}, line {line}: {what}; restore the file")

    def _hint(self) -> str:
        inner = subfolders(self.root) if self.root.is_dir() else []
        for folder in inner:
            if (folder / SPLIT).is_file():
                return f"it lies one folder deeper; set data.root={folder}"
        for home in (self.root, *inner):
            if any(home.glob("*/train/good")):
                return f"this is VisA as prepare_data.py parts it: data=mvtec data.root={home}"
        return f"set data.root to where VisA is, or get it: {VISA_URL}"
