"""The layout of VisA (Zou et al., ECCV 2022), as downloaded."""

import csv
from collections.abc import Iterable
from pathlib import Path

from anomalib_rd.data.source import GOOD, Sample, Split, check_category, root_folder
from anomalib_rd.data.walk import subfolders
from anomalib_rd.errors import UserError

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
        check_category(category, self._objects(rows), self.root)
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
