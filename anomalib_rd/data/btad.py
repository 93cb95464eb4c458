"""The layout of BTAD (Mishra et al., ISIE 2021), as downloaded."""

from anomalib_rd.data.layout import CategoryFolders


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
