"""Synthetic photographs of industrial parts, with defects whose masks are exact.

One module per subject. A subject is a function ``draw(shot) -> image`` that consumes
``shot.rng`` in the same way whether or not the shot has a defect; the pair of a normal
and a defective image then differs in the defect alone, and their difference is the mask.
"""

from anomalib_rd.data.demo_images.render import CATEGORIES, Category, render, render_pair

__all__ = ["CATEGORIES", "Category", "render", "render_pair"]
