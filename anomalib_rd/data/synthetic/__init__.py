"""Synthetic defects on normal images, with exact masks: what a choice can be made by without the
test set. No torch.

They are like real ones in size and contrast and no more than that: good for comparing two
settings on one category, not for saying how well a defect will be found.
"""

from anomalib_rd.data.synthetic.defects import KINDS as KINDS
from anomalib_rd.data.synthetic.defects import add_defect as add_defect
from anomalib_rd.data.synthetic.foreground import foreground as foreground
from anomalib_rd.data.synthetic.seeding import draw as draw
from anomalib_rd.data.synthetic.seeding import generator as generator
