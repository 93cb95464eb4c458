"""The folder layouts of published data sets: a table of those like MVTec AD, and VisA.

To add one like MVTec AD, add an entry to `LAYOUTS` and a config ``conf/data/NAME.yaml`` with
``_target_: anomalib_rd.data.<key of the entry>``.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    category_names,
    pair_masks,
    require_category,
    root_folder,
)
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import printable

MVTEC_TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood"})
MVTEC_OBJECTS = frozenset({"bottle", "cable", "capsule", "hazelnut", "metal_nut"}) | frozenset(
    {"pill", "screw", "toothbrush", "transistor", "zipper"}
)
DOWNLOAD_COMMAND = "anomalib-rd data download --root {root} --accept-license"


@dataclass(frozen=True)
class Layout:
    """A published data set and its folders below ``root/<category>``.

    Attributes:
        title: its name.
        url: download address or command; ``{root}`` is replaced by the folder.
        train: folder of normal training images.
        validation: folder of further normal images, if any.
        test: folder with one folder for each defect type and one of normal images.
        good: name of the folder of normal test images.
        masks: folder with one folder of masks for each defect type.
        mask_folders: whether an image has a folder of masks, not one file.
        unlabelled: folders of test images without public labels, which are not used.
        textures: the categories that form the texture group; all others are objects.
        counts: category -> published number of training, normal test, defect test (and
            validation) images.
    """

    title: str
    url: str
    train: str = "train/good"
    validation: str | None = None
    test: str = "test"
    good: str = GOOD
    masks: str = "ground_truth"
    mask_folders: bool = False
    unlabelled: tuple[str, ...] = ()
    textures: frozenset[str] = frozenset()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


LAYOUTS = {
    "MVTecAD": Layout(
        title="MVTec AD",
        url=DOWNLOAD_COMMAND,
        textures=MVTEC_TEXTURES,
        counts={
            "bottle": (209, 20, 63),
            "cable": (224, 58, 92),
            "capsule": (219, 23, 109),
            "carpet": (280, 28, 89),
            "grid": (264, 21, 57),
            "hazelnut": (391, 40, 70),
            "leather": (245, 32, 92),
            "metal_nut": (220, 22, 93),
            "pill": (267, 26, 141),
            "screw": (320, 41, 119),
            "tile": (230, 33, 84),
            "toothbrush": (60, 12, 30),
            "transistor": (213, 60, 40),
            "wood": (247, 19, 60),
            "zipper": (240, 32, 119),
        },
    ),
    # beanTech Anomaly Detection; root is the archive's folder BTech_Dataset_transformed. A mask may
    # have another extension than its image. 11 published masks are empty (1 in 02, 10 in 03).
    "BTAD": Layout(
        title="BTAD",
        url="https://avires.dimi.uniud.it/papers/btad/btad.zip",
        train="train/ok",
        good="ok",
        counts={"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)},
    ),
    "MPDD": Layout(
        title="MPDD",
        url="https://github.com/stepanje/MPDD",
        counts={
            "bracket_black": (289, 32, 47),
            "bracket_brown": (185, 26, 51),
            "bracket_white": (110, 30, 30),
            "connector": (128, 30, 14),
            "metal_plate": (54, 26, 71),
            "tubes": (122, 32, 69),
        },
    ),
    # The masks of test/<type>/000.png are ground_truth/<type>/000/{000.png, 001.png, ...}. Their
    # values are defect types, so all but 0 is defect. The authors' metric, sPRO, weights regions by
    # type and is not implemented.
    "MVTecLOCO": Layout(
        title="MVTec LOCO AD",
        url="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        validation="validation/good",
        mask_folders=True,
        counts={
            "breakfast_box": (351, 102, 173, 62),
            "juice_bottle": (335, 94, 236, 54),
            "pushpins": (372, 138, 172, 69),
            "screw_bag": (360, 122, 219, 60),
            "splicing_connectors": (360, 119, 193, 60),
        },
    ),
    # Published results are on the private test images; https://benchmark.mvtec.com evaluates
    # anomaly maps sent to it.
    "MVTecAD2": Layout(
        title="MVTec AD 2",
        url="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        validation="validation/good",
        test="test_public",
        masks="test_public/ground_truth",
        unlabelled=("test_private", "test_private_mixed"),
        counts={
            "can": (412, 72, 90, 46),
            "fabric": (387, 66, 90, 43),
            "fruit_jelly": (263, 20, 60, 37),
            "rice": (313, 42, 90, 35),
            "sheet_metal": (137, 24, 90, 19),
            "vial": (291, 35, 105, 41),
            "wallplugs": (293, 60, 90, 33),
            "walnuts": (432, 60, 90, 48),
        },
    ),
}
"""Name of the class in configs (``anomalib_rd.data.NAME``) -> layout."""


class CategoryFolders:
    """Data set with ``root/<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    Categories and defect types are read from disk: any data set in the layout works. The mask of
    ``test/<defect>/000.png`` is ``ground_truth/<defect>/000_mask.png``; it may be missing.

    Args:
        root: the folder that contains the categories.
        textures: the categories that form the texture group; None: those of the layout.
        train_on_validation: whether to train on the validation images too, or not to use them.

    Raises:
        UserError: ``train_on_validation`` in a layout without validation images.
    """

    layout: Layout

    def __init__(
        self,
        root: str | Path,
        textures: Iterable[str] | None = None,
        train_on_validation: bool = False,
    ) -> None:
        if train_on_validation and not self.layout.validation:
            raise UserError(
                f"data.source.train_on_validation: {self.layout.title} has no validation images;"
                " remove it"
            )
        self.root = root_folder(root)
        self.textures = self.layout.textures if textures is None else frozenset(textures)
        self.train_on_validation = train_on_validation

    def categories(self) -> list[str]:
        """Subfolders of the root with a folder of training images, sorted.

        Raises:
            UserError: no root, or no category in it.
        """
        if not self.root.is_dir():
            raise UserError(
                f"dataset folder {self.root} does not exist; {self._how_to_get('set data.root')}"
            )
        names = category_names(self.root, self._is_category)
        if not names:
            raise UserError(f"no category in {self.root}: {self._hint()}")
        return names

    def split(self, category: str) -> Split:
        """The samples of ``category``, ordered by defect type and file name.

        Raises:
            UserError: no such category, no training or test images, or a mask without image.
        """
        require_category(category, self.categories(), self.root)
        layout, folder = self.layout, self.root / category
        train = self._train_images(folder / layout.train)
        if layout.validation and self.train_on_validation:
            train += self._train_images(folder / layout.validation)
        test_folder, masks = folder / layout.test, folder / layout.masks
        if not test_folder.is_dir():
            raise UserError(
                f"no folder {test_folder}; put test images in {layout.test}/<defect type>"
            )
        # In MVTec AD 2 the mask folder is next to the defect types.
        defects = [path for path in distinct_subfolders(test_folder) if path != masks]
        test = [sample for path in defects for sample in self._test_samples(path, masks, category)]
        if not test:
            raise UserError(
                f"no images in the folders of {test_folder}{explain_no_images(test_folder)};"
                f" put normal ones in {layout.good}, defect ones in a folder for each defect type"
            )
        if masks.is_dir():
            # Masks whose test folder was renamed or is missing.
            for path in distinct_subfolders(masks):
                if path.name != layout.good and not (test_folder / path.name).is_dir():
                    self._pair([], test_folder / path.name, path)
        return Split([Sample(path, category, GOOD, 0) for path in train], test)

    def ignored_folders(self, category: str) -> list[Path]:
        """Folders of images that are excluded on purpose, see `find_unused`."""
        layout, folder = self.layout, self.root / category
        ignored = [f"{layout.masks}/{layout.good}", *layout.unlabelled]
        if layout.validation and not self.train_on_validation:
            ignored.append(layout.validation)
        return [folder / name for name in ignored]

    def _train_images(self, folder: Path) -> list[Path]:
        images = list_images(folder)
        if not images:
            raise UserError(
                f"no training images in {folder}{explain_no_images(folder)}; put normal images"
                " there"
            )
        return images

    def _test_samples(self, folder: Path, masks: Path, category: str) -> list[Sample]:
        images = list_images(folder)
        if folder.name == self.layout.good:
            return [Sample(path, category, GOOD, 0) for path in images]
        pairs = self._pair(images, folder, masks / folder.name)
        defect = printable(folder.name)
        return [Sample(path, category, defect, 1, pairs.get(path)) for path in images]

    def _pair(self, images: list[Path], folder: Path, masks: Path) -> dict[Path, Path]:
        if self.layout.mask_folders:
            return pair_masks(images, folder, masks, subfolders(masks) if masks.is_dir() else [])
        return pair_masks(images, folder, masks)

    def _is_category(self, folder: Path) -> bool:
        return (folder / self.layout.train).is_dir()

    def _hint(self) -> str:
        if self._is_category(self.root):
            root = self.root.resolve()
            return f"it is a category itself; set data.root={root.parent} data.category={root.name}"
        for inner in subfolders(self.root):
            if any(self._is_category(path) for path in subfolders(inner)):
                return f"they are one folder deeper; set data.root={inner}"
        return self._how_to_get(f"expected <category>/{self.layout.train}; set data.root")

    def _how_to_get(self, advice: str) -> str:
        url = self.layout.url.format(root=self.root)
        return f"{advice} to the folder of {self.layout.title}, or get it: {url}"


def _source_class(name: str, layout: Layout) -> type[CategoryFolders]:
    doc = f"{layout.title}, see `LAYOUTS`. {CategoryFolders.__doc__}"
    body = {"layout": layout, "counts": layout.counts, "__doc__": doc, "__module__": __name__}
    return type(name, (CategoryFolders,), body)


_CLASSES = {name: _source_class(name, layout) for name, layout in LAYOUTS.items()}


def __getattr__(name: str) -> type[CategoryFolders]:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _CLASSES[name]


VISA_URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA.tar"
SPLIT_FILE = Path("split_csv", "1cls.csv")
COLUMNS = ("object", "split", "label", "image", "mask")


class VisA:
    """Visual Anomaly data set: twelve objects, split by the authors' ``split_csv/1cls.csv``.

    Its rows, ``object,split,label,image,mask``, name images and masks below the root, such as
    ``candle/Data/Images/Normal/0000.JPG``, ``candle/Data/Images/Anomaly/000.JPG`` and
    ``candle/Data/Masks/Anomaly/000.png``. In a mask, 1 to 9 are defect types and 0 is normal. An
    image may show several types, so the defect type of all images is "anomaly". Objects without a
    folder are skipped. Layout of the authors' archive, https://github.com/amazon-science/spot-diff;
    their ``prepare_data.py`` converts it to MVTec AD's layout.

    Args:
        root: the folder that contains ``split_csv`` and the objects.
        textures: the objects that form the texture group; the authors name none.
    """

    counts: Mapping[str, tuple[int, ...]] = {
        "candle": (900, 100, 100),
        "capsules": (542, 60, 100),
        "cashew": (450, 50, 100),
        "chewinggum": (453, 50, 100),
        "fryum": (450, 50, 100),
        "macaroni1": (900, 100, 100),
        "macaroni2": (900, 100, 100),
        "pcb1": (904, 100, 100),
        "pcb2": (901, 100, 100),
        "pcb3": (905, 101, 100),
        "pcb4": (904, 101, 100),
        "pipe_fryum": (450, 50, 100),
    }

    def __init__(self, root: str | Path, textures: Iterable[str] = ()) -> None:
        self.root = root_folder(root)
        self.textures = frozenset(textures)

    def categories(self) -> list[str]:
        """The objects of the split file that have a folder, sorted.

        Raises:
            UserError: no root, no split file or an invalid one, or none of its objects.
        """
        return self._objects(self._rows())

    def split(self, category: str) -> Split:
        """The samples of ``category``: normal images, then anomalies, by path.

        Raises:
            UserError: no such object, an invalid row, a training anomaly, or no images.
        """
        rows = self._rows()
        require_category(category, self._objects(rows), self.root)
        parts: dict[str, list[Sample]] = {"train": [], "test": []}
        for line, row in enumerate(rows, start=2):
            if row["object"] != category:
                continue
            problem = None
            if row["split"] not in parts or row["label"] not in ("normal", "anomaly"):
                problem = "expected train or test, normal or anomaly"
            elif (row["split"], row["label"]) == ("train", "anomaly"):
                problem = "an anomaly in the training images"
            if problem:
                raise UserError(
                    f"{self.root / SPLIT_FILE}, line {line}: {problem}; restore the file"
                )
            parts[row["split"]].append(self._sample(row))
        if not all(parts.values()):
            raise UserError(
                f"{self.root / SPLIT_FILE} has no train or no test images of {category}"
            )
        return Split(*(sorted(p, key=lambda s: (s.label, s.path)) for p in parts.values()))

    def _sample(self, row: dict[str, str]) -> Sample:
        path = self.root / row["image"]
        if row["label"] == "normal":
            return Sample(path, row["object"], GOOD, 0)
        mask = self.root / row["mask"] if row["mask"] else None
        return Sample(path, row["object"], "anomaly", 1, mask)

    def _rows(self) -> list[dict[str, str]]:
        file = self.root / SPLIT_FILE
        if not file.is_file():
            raise UserError(f"no {file}; {self._hint()}")
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, restval="")
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise UserError(f"{file} needs the columns {','.join(COLUMNS)}; restore the file")
            return list(reader)

    def _objects(self, rows: list[dict[str, str]]) -> list[str]:
        names = sorted({row["object"] for row in rows if (self.root / row["object"]).is_dir()})
        if not names:
            raise UserError(f"none of the objects of {self.root / SPLIT_FILE} is in {self.root}")
        return names

    def _hint(self) -> str:
        inner = subfolders(self.root) if self.root.is_dir() else []
        for folder in inner:
            if (folder / SPLIT_FILE).is_file():
                return f"it is one folder deeper; set data.root={folder}"
        for folder in (self.root, *inner):
            if any(folder.glob("*/train/good")):
                return f"this is VisA as split by prepare_data.py: data=mvtec data.root={folder}"
        return f"set data.root to the folder of VisA, or get it: {VISA_URL}"
