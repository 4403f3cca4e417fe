"""How a frozen model is named, and what each kind of it gives: for errors, `onestage ls teachers` and the docs."""

from __future__ import annotations

FORMS = (
    "a run folder (RUN, RUN@STEP, RUN@best, RUN:ema), open_clip:NAME/TAG_OR_FILE, open_clip:local-dir:DIR, "
    "timm:NAME[@FILE], timm:local-dir:DIR or hf:NAME_OR_DIR (see: onestage ls teachers)"
)

COLUMNS = ("form", "families", "dense rows in", "texts")

TABLE: tuple[tuple[str, str, str, str], ...] = (
    ("RUN[@STEP|@best][:student|:ema]", "a run of onestage", "raw; joint where it learned one", "where it has them"),
    ("open_clip:NAME/TAG", "CLIP, EVA-CLIP, MetaCLIP, MobileCLIP-B: class token", "raw, joint", "yes"),
    ("open_clip:NAME/FILE", "SigLIP, SigLIP 2, PE, CoCa: attention pool", "raw, joint", "yes"),
    ("open_clip:local-dir:DIR", "towers pooled by a mean, norm before it", "raw, joint", "yes"),
    ("", "CLIPA, ViTamin, ConvNeXt, Swin", "raw only", "yes"),
    ("timm:NAME[@FILE]", "ViT, EVA-02, DINOv2, DINOv3, BEiT, MAE", "raw", "no"),
    ("timm:local-dir:DIR", "ConvNeXt, Swin, ResNet: cells of the last map", "raw", "no"),
    ("hf:NAME_OR_DIR", "CLIP, MetaCLIP 2: class token", "raw, joint", "yes"),
    ("", "SigLIP, SigLIP 2 of a fixed size: attention pool", "raw, joint", "yes"),
    ("", "DINOv2, with registers too; DINOv3 ViT", "raw", "no"),
)
"""Raw rows come after the final norm; joint rows are in the space of the texts, and exact."""
