"""Every family of open_clip's image towers: where each row stands in the joint space, and where none can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from onestage.spec import UserError
from onestage.teachers import load
from onestage.teachers.open_clip import tower_of
from onestage.teachers.tower_clip import CocaTower
from published import NATIVE, TEXT, picture, pixels_of, published, random_timm, saved

SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 32}
PATCHES = {**SMALL, "patch_size": 8}
AVERAGED = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8, "class_token": False}
TRUNKS: dict[str, tuple[str, dict[str, Any]]] = {
    "siglip": ("vit_base_patch16_siglip_224", PATCHES | {"num_classes": 0}),
    "pe": ("vit_pe_core_tiny_patch16_384", PATCHES | {"depth": 1, "num_classes": 24, "attn_pool_num_heads": 2}),
    "mean": ("vit_base_patch16_224", AVERAGED | {"global_pool": "avg", "fc_norm": False, "num_classes": 0}),
    "mean then norm": ("vit_base_patch16_224", AVERAGED | {"global_pool": "avg", "fc_norm": True, "num_classes": 0}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 24), "num_classes": 0}),
}
HEADS = {"siglip": ("map", "none"), "pe": ("map", None), "mean": ("avg", "linear"), "convnext": ("avg", "linear")}
VISION = NATIVE["vision_cfg"]
COCA = {
    "embed_dim": 24,
    "vision_cfg": VISION
    | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 6}
    | {"output_tokens": True},
    "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
    "multimodal_cfg": TEXT,
    "custom_text": True,
}
NATIVES: dict[str, dict[str, Any]] = {
    "native mean": NATIVE | {"vision_cfg": VISION | {"pool_type": "avg"}},
    "native mean then norm": NATIVE | {"vision_cfg": VISION | {"pool_type": "avg", "final_ln_after_pool": True}},
    "coca": COCA,
}
EXACT = ["siglip", "pe", "mean", "native mean", "coca"]
INEXACT = {
    "mean then norm": "LayerNorm comes after it",
    "native mean then norm": "CLIPA",
    "convnext": "map of features",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One published folder for each family."""
    root = tmp_path_factory.mktemp("families")
    made = {}
    for kind, (name, options) in TRUNKS.items():
        trunk = random_timm(root / "trunks" / kind.replace(" ", "_"), name, options)
        pool, head = HEADS.get(kind, ("avg", "linear"))
        width = 64 if kind == "siglip" else 24
        vision = {"image_size": 32, "timm_model_name": f"local-dir:{trunk}", "timm_pool": pool, "timm_proj": head}
        config = {"embed_dim": width, "vision_cfg": vision, "text_cfg": TEXT, "custom_text": True}
        made[kind] = saved(root / kind.replace(" ", "_"), config)
    return made | {kind: saved(root / kind.replace(" ", "_"), config) for kind, config in NATIVES.items()}


def head_of(visual: Any) -> Callable[[Tensor], Tensor]:
    """From (b, n, d) raw rows to (b, k): open_clip's own pooling and projection."""
    if hasattr(visual, "trunk"):
        return lambda rows: visual.head(visual.trunk.forward_head(rows))
    return lambda rows: visual._global_pool(rows)[0] @ visual.proj


@pytest.mark.parametrize("kind", EXACT)
@torch.no_grad()
def test_the_pooled_row_is_encode_image(kind: str, folders: dict[str, Path]) -> None:
    model, preprocess = published(folders[kind])
    teacher = load(f"open_clip:local-dir:{folders[kind]}")
    assert teacher.has_joint and teacher.grid == (4, 4)
    image = picture(32)
    expected = model.visual(preprocess(image)[None])
    given = teacher.tokens(pixels_of(image), "joint")
    torch.testing.assert_close(given.pooled, expected[0] if kind == "coca" else expected, atol=1e-5, rtol=1e-5)
    assert given.rows.shape == (1, 16, teacher.width("joint"))
    raw = teacher.tokens(pixels_of(image), "raw")
    assert raw.rows.shape == (1, 16, teacher.width("raw")) and raw.pooled.shape == (1, teacher.width("raw"))


@pytest.mark.parametrize("kind", [kind for kind in EXACT if kind != "coca"])
@torch.no_grad()
def test_a_row_stands_where_equal_rows_are_pooled(kind: str, folders: dict[str, Path]) -> None:
    model, _ = published(folders[kind])
    teacher = load(f"open_clip:local-dir:{folders[kind]}")
    pixels = pixels_of(picture(32))
    raw, joint = teacher.tokens(pixels, "raw").rows[0], teacher.tokens(pixels, "joint").rows[0]
    head = head_of(model.visual)
    expected = torch.stack([head(row.expand(1, 17, -1))[0] for row in raw])
    torch.testing.assert_close(joint, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(joint[0], joint[5], atol=1e-3), "rows differ"


@torch.no_grad()
def test_a_row_of_coca_stands_where_equal_rows_are_pooled(folders: dict[str, Path]) -> None:
    model, preprocess = published(folders["coca"])
    teacher = load(f"open_clip:local-dir:{folders['coca']}")
    image, visual = picture(32), model.visual
    normed = preprocess(image)[None]
    rows = visual.transformer(visual._embeds(normed))[0, 1:]
    expected = torch.stack([visual._pool(row.expand(1, 17, -1))[0][0] @ visual.proj for row in rows])
    torch.testing.assert_close(teacher.tokens(pixels_of(image), "joint").rows[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        teacher.tokens(pixels_of(image), "raw").rows[0], visual.attn_pool.ln_k(rows), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_the_mean_of_rows_is_the_pooled_row_where_a_mean_pools(folders: dict[str, Path]) -> None:
    for kind in ("mean", "native mean"):
        answer = load(f"open_clip:local-dir:{folders[kind]}").tokens(pixels_of(picture(32)), "joint")
        torch.testing.assert_close(answer.rows.mean(dim=1), answer.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", INEXACT)
@torch.no_grad()
def test_inexact_families_give_raw_rows_and_say_why_no_others(kind: str, folders: dict[str, Path]) -> None:
    model, preprocess = published(folders[kind])
    teacher = load(f"open_clip:local-dir:{folders[kind]}")
    assert not teacher.has_joint and teacher.has_text
    with pytest.raises(UserError, match=INEXACT[kind]) as caught:
        teacher.tokens(pixels_of(picture(32)), "joint")
    assert "space: raw" in str(caught.value) and str(folders[kind]) in str(caught.value)
    image = picture(32)
    raw, visual = teacher.tokens(pixels_of(image), "raw"), model.visual
    assert raw.rows.shape == (1, teacher.grid[0] * teacher.grid[1], teacher.width("raw"))
    if not hasattr(visual, "trunk"):
        projected = raw.pooled @ visual.proj
    elif kind == "convnext":  # the norm of its head comes before what is called the pooled row
        projected = visual.head(raw.pooled)
    else:
        projected = visual.head(visual.trunk.head(raw.pooled))
    torch.testing.assert_close(projected, visual(preprocess(image)[None]), atol=1e-5, rtol=1e-5)


def test_a_resnet_with_an_attention_pool_is_refused(tmp_path: Path) -> None:
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    folder = saved(tmp_path / "resnet", {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT})
    with pytest.raises(UserError, match=r"ModifiedResNet.*attention pool over a map.*Use a ViT"):
        load(f"open_clip:local-dir:{folder}")


def test_coca_with_two_pools_has_no_joint_rows() -> None:
    vision = COCA["vision_cfg"] | {"attentional_pool": "parallel"}
    model: Any = open_clip.CoCa(24, COCA["multimodal_cfg"], COCA["text_cfg"], vision)
    tower = CocaTower(model.visual)
    assert tower.joint is None and "two stages" in tower.lack


def test_the_default_teacher_builds_by_name() -> None:
    """EVA01-g-14-plus, 1.3 billion parameters that are never filled: a class token, 16 x 16 rows of 1408 and 1024."""
    with torch.device("meta"):
        model: Any = open_clip.create_model("EVA01-g-14-plus", load_weights=False, device="meta")
    tower = tower_of("open_clip:EVA01-g-14-plus/FILE", model.visual, 224, open_clip.get_model_config("EVA01-g-14-plus"))
    assert (tower.grid, tower.width, tower.joint, tower.lack) == ((16, 16), 1408, 1024, "")
    assert sum(weight.numel() for weight in model.visual.parameters()) > 1_000_000_000
