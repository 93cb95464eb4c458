"""The layout of MPDD (Jezek et al., ICUMT 2021), as downloaded."""

from anomalib_rd.data.layout import CategoryFolders


class MPDD(CategoryFolders):
    """Metal Parts Defect Detection: six categories of painted metal parts, in MVTec AD's layout.

    The authors' page is https://github.com/stepanje/MPDD; the layout is that of their archive, as
    anomalib's ``MPDDDataset`` reads it.
    """

    title = "MPDD"
    page = "https://github.com/stepanje/MPDD"
