"""Paper-size recipes of masked data modelling: BEiT-3. Its pre-training was never released, so that much is assumed."""

from __future__ import annotations

from collections.abc import Callable

from onestage.encoders import Multiway
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.methods.multimodal import BEIT3
from onestage.pretraining import Recipe


def beit3_b16() -> Recipe:
    """BEiT-3 base (arXiv:2208.10442, sec. 2.3 and 3).

    Data: image-text pairs, and images and texts alone in a mixture with them. Command: onestage pretrain beit3_b16
    --data SRC --teacher runs/vqkd_b16 --out runs/beit3_b16
    Expected: 85.4 % top-1 after fine-tuning on ImageNet-1K, after ImageNet-21K (released checkpoint). A batch of 6144
    is 2048 images, 2048 texts and 2048 pairs, as here. Assumed: the view, CLIP's words in place of 64,010 pieces, no
    clipping, pixels in [-1, 1], and the learning rate that the paper gives for its giant.
    """
    return _recipe("beit3_b16", Multiway(size=224, drop_path=0.1))


def beit3_l16() -> Recipe:
    """BEiT-3 large (arXiv:2208.10442, sec. 2.3 and 3).

    Data and command: as beit3_b16. Expected: 87.6 % top-1 as there. Assumed: as beit3_b16.
    """
    return _recipe("beit3_l16", Multiway(size=224, width=1024, depth=24, heads=16, drop_path=0.1))


MULTIMODAL_ROWS: tuple[Callable[[], Recipe], ...] = (beit3_b16, beit3_l16)


def _recipe(name: str, model: Multiway) -> Recipe:
    group = Group(lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05)
    return Recipe(
        name=name,
        method=BEIT3,
        models={"student": model},
        batch=2048,
        steps=1_000_000,
        optimiser=Optimiser(groups={"all": group}, reference_batch=2048),
        schedule=Cosine(warmup=10_000 / 1_000_000),
    )
