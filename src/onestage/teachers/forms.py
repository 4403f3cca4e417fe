"""How a frozen model is named, and what each family of them gives: for errors, `onestage ls teachers` and the docs."""

from __future__ import annotations

FORMS = (
    "a run folder (RUN, RUN@STEP, RUN@best, RUN:ema), open_clip:NAME/TAG_OR_FILE, open_clip:local-dir:DIR, "
    "timm:NAME[@FILE], timm:local-dir:DIR, hf:NAME_OR_DIR, uta:FILE or dalle:FILE (see: onestage ls teachers)"
)

REFERENCES: tuple[tuple[str, str], ...] = (
    ("RUN[@STEP|@best][:student|:ema]", "the folder of a run"),
    ("open_clip:NAME/TAG", "weights that open_clip knows by a tag: from the hub's cache, else fetched from the hub"),
    ("open_clip:NAME/FILE", "an architecture of open_clip with a file of its weights"),
    ("open_clip:local-dir:DIR", "a folder with open_clip_config.json, weights and, where it has its own, a tokenizer"),
    ("timm:NAME", "a model of timm: from the hub's cache, else fetched from the hub"),
    ("timm:NAME@FILE", "a model of timm with a file of its weights"),
    ("timm:local-dir:DIR", "a folder with timm's config.json and weights"),
    ("hf:DIR", "a folder of transformers: config.json, preprocessor_config.json, weights and tokenizer"),
    ("hf:OWNER/NAME", "a model of transformers: from the hub's cache, else fetched from the hub"),
    ("uta:FILE", "a checkpoint as UTA's authors released it, converted to safetensors: image and text tower"),
    ("dalle:FILE", "DALL-E's image tokenizer, converted to safetensors: codes of 14 x 14 cells, for BEiT and its kin"),
)
"""Weights are files of safetensors; no pickle is opened."""

COLUMNS = ("library", "families", "dense rows", "texts")

TABLE: tuple[tuple[str, str, str, str], ...] = (
    ("onestage", "every run", "raw; joint where it learned one", "where it learned from them"),
    ("onestage", "UTA-B, L and g as released, also to start from (--init)", "raw, joint", "yes"),
    ("open_clip", "CLIP, EVA-CLIP, MetaCLIP, MobileCLIP-B: a class token pools", "raw, joint", "yes"),
    ("open_clip", "SigLIP, SigLIP 2, PE, CoCa: an attention pools", "raw, joint", "yes"),
    ("open_clip", "ViTs that a mean pools, with their norm before it", "raw, joint", "yes"),
    ("open_clip", "CLIPA, ViTamin; ConvNeXt, Swin: cells of the last map", "raw", "yes"),
    ("open_clip", "ResNets with an attention pool (RN50 and its kin)", "refused", ""),
    ("timm", "ViT, EVA-02, DINOv2, DINOv3, BEiT, SigLIP and their kin", "raw", "no"),
    ("timm", "ConvNeXt, Swin, ResNet and their kin: cells of the last map", "raw", "no"),
    ("transformers", "CLIP, MetaCLIP 2: a class token pools", "raw, joint", "yes"),
    ("transformers", "SigLIP, SigLIP 2 of a fixed size: an attention pools", "raw, joint", "yes"),
    ("DALL-E", "the encoder of its discrete VAE: codes, and the rows that they are made of", "raw, codes", "no"),
    ("transformers", "DINOv2, with registers too; DINOv3 ViT", "raw", "no"),
)
"""Raw rows come after the final norm; joint rows are in the space of the texts, and exact."""
