"""The layout of MVTec AD 2 (Heckler-Kram et al., 2025, arXiv 2503.21622), as downloaded."""

from pathlib import Path

from anomalib_rd.data.layout import WithValidation


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
