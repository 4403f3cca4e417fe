"""The checkpoints that UTA's authors released: the answers of their own arithmetic, and a start for runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from open_clip import tokenize
from open_clip.transformer import TextTransformer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import layer_norm, silu, softmax

from onestage import api, pretraining
from onestage.spec import UserError
from onestage.teachers import load

PATCH, GRID, WIDTH, HEADS, DEPTH, HIDDEN, JOINT = 8, 3, 32, 2, 2, 85, 24
WORDS = ["a red seven", "a small blue three left of a nine"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SMALL = {"batch": "4", "workers": "0", "precision": "fp32"}
STUDENT = {
    "arch": "eva02_base_patch14_224", "patch": 8, "width": WIDTH, "depth": DEPTH, "heads": HEADS, "size": 24,
    "mlp_ratio": 85.5 / 32, "normalise": "clip", "stem": "patch", "init": "timm",
}  # fmt: skip
START = SMALL | {f"models.student.{key}": str(value) for key, value in STUDENT.items()}
START |= {"models.text.width": "128", "models.text.depth": "1", "models.text.heads": "2", "models.text.joint": "24"}
START |= {"models.text.context": "77"}


def rotary() -> tuple[Tensor, Tensor]:
    """The table of the released code in loops: positions stretched to sixteen, rows first, each angle twice."""
    head = WIDTH // HEADS
    angles = torch.zeros(GRID * GRID, head, dtype=torch.float64)
    for row in range(GRID):
        for column in range(GRID):
            for axis, at in enumerate((row, column)):
                for k in range(head // 4):
                    angle = at / GRID * 16 / 10000 ** (2 * k / (head // 2))
                    place = axis * (head // 2) + 2 * k
                    angles[row * GRID + column, place] = angles[row * GRID + column, place + 1] = angle
    return angles.cos(), angles.sin()


def checkpoint(patch: int = PATCH, grid: int = GRID) -> dict[str, Tensor]:
    """Random weights under the names of the released code."""
    torch.manual_seed(0)
    draw = lambda *shape: 0.2 * torch.randn(*shape)  # noqa: E731
    visual = {
        "cls_token": draw(1, 1, WIDTH), "pos_embed": draw(1, grid * grid + 1, WIDTH),
        "patch_embed.proj.weight": draw(WIDTH, 3, patch, patch), "patch_embed.proj.bias": draw(WIDTH),
        "rope.freqs_cos": rotary()[0].float(), "rope.freqs_sin": rotary()[1].float(),
        "norm.weight": 1 + draw(WIDTH), "norm.bias": draw(WIDTH),
        "head.weight": draw(JOINT, WIDTH), "head.bias": draw(JOINT),
    }  # fmt: skip
    for block in range(DEPTH):
        at = f"blocks.{block}."
        for name in ("norm1", "norm2"):
            visual |= {f"{at}{name}.weight": 1 + draw(WIDTH), f"{at}{name}.bias": draw(WIDTH)}
        visual |= {f"{at}attn.{name}_proj.weight": draw(WIDTH, WIDTH) for name in "qkv"}
        visual |= {f"{at}attn.{name}": draw(WIDTH) for name in ("q_bias", "v_bias")}
        visual |= {f"{at}attn.proj.weight": draw(WIDTH, WIDTH), f"{at}attn.proj.bias": draw(WIDTH)}
        visual |= {f"{at}attn.rope.{name}": visual[f"rope.{name}"].clone() for name in ("freqs_cos", "freqs_sin")}
        for name in ("w1", "w2"):
            visual |= {f"{at}mlp.{name}.weight": draw(HIDDEN, WIDTH), f"{at}mlp.{name}.bias": draw(HIDDEN)}
        visual |= {f"{at}mlp.ffn_ln.weight": 1 + draw(HIDDEN), f"{at}mlp.ffn_ln.bias": draw(HIDDEN)}
        visual |= {f"{at}mlp.w3.weight": draw(WIDTH, HIDDEN), f"{at}mlp.w3.bias": draw(WIDTH)}
    text = {f"text.{key}": value for key, value in text_tower().state_dict().items() if "attn_mask" not in key}
    return {f"visual.{key}": value for key, value in visual.items()} | text | {"logit_scale": torch.tensor(4.0)}


def text_tower() -> TextTransformer:
    """The released text tower is open_clip's, small here."""
    torch.manual_seed(1)
    return TextTransformer(width=128, heads=2, layers=1, output_dim=JOINT).eval()


def answer(given: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """What the released image tower answers with for every row, class token first: in float64, head by head."""
    w = {key.removeprefix("visual."): value.double() for key, value in given.items() if key.startswith("visual.")}
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (MEAN, STD))
    images = (pixels.double() - mean) / std
    rows = [w["cls_token"].expand(len(pixels), 1, -1)]
    for top in range(GRID):
        for left in range(GRID):
            cell = images[:, :, top * PATCH : (top + 1) * PATCH, left * PATCH : (left + 1) * PATCH]
            row = torch.einsum("bcpq,dcpq->bd", cell, w["patch_embed.proj.weight"]) + w["patch_embed.proj.bias"]
            rows.append(row.unsqueeze(1))
    x = torch.cat(rows, dim=1) + w["pos_embed"]
    for block in range(DEPTH):
        x = one_block(x, {k.removeprefix(f"blocks.{block}."): v for k, v in w.items()})
    x = normed(x, w["norm.weight"], w["norm.bias"])
    return x @ w["head.weight"].T + w["head.bias"]


def normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return layer_norm(x, weight.shape, weight, bias, eps=1e-6)


def one_block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    y = normed(x, w["norm1.weight"], w["norm1.bias"])
    q = y @ w["attn.q_proj.weight"].T + w["attn.q_bias"]
    k = y @ w["attn.k_proj.weight"].T
    v = y @ w["attn.v_proj.weight"].T + w["attn.v_bias"]
    head, mixed = WIDTH // HEADS, []
    for h in range(HEADS):
        part = slice(h * head, (h + 1) * head)
        logits = turned(q[..., part]) @ turned(k[..., part]).transpose(1, 2) / math.sqrt(head)
        mixed.append(softmax(logits, dim=-1) @ v[..., part])
    x = x + torch.cat(mixed, dim=-1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    y = normed(x, w["norm2.weight"], w["norm2.bias"])
    gate = silu(y @ w["mlp.w1.weight"].T + w["mlp.w1.bias"]) * (y @ w["mlp.w2.weight"].T + w["mlp.w2.bias"])
    gate = normed(gate, w["mlp.ffn_ln.weight"], w["mlp.ffn_ln.bias"])
    return x + gate @ w["mlp.w3.weight"].T + w["mlp.w3.bias"]


def turned(rows: Tensor) -> Tensor:
    """Neighbouring values rotated as one complex number; the class token is left."""
    cosine, sine = rotary()
    cells, swapped = rows[:, 1:], torch.empty_like(rows[:, 1:])
    swapped[..., 0::2], swapped[..., 1::2] = -cells[..., 1::2], cells[..., 0::2]
    return torch.cat([rows[:, :1], cells * cosine + swapped * sine], dim=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "uta.safetensors"
    save_file({key: value.clone().contiguous() for key, value in checkpoint().items()}, path)
    return path


def test_images_are_answered_as_by_the_released_code(file: Path) -> None:
    model = load(f"uta:{file}")
    assert (model.size, model.grid, model.statistics) == (PATCH * GRID, (GRID, GRID), "clip")
    pixels = torch.rand(2, 3, model.size, model.size)
    expected, tokens = answer(checkpoint(), pixels).float(), model.tokens(pixels, "joint")
    torch.testing.assert_close(tokens.pooled, expected[:, 0], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(tokens.rows, expected[:, 1:], atol=2e-5, rtol=1e-5)
    assert expected.std() > 0.1


def test_texts_are_answered_as_by_the_released_code(file: Path) -> None:
    model = load(f"uta:{file}")
    torch.testing.assert_close(model.text(WORDS), text_tower()(tokenize(WORDS)).detach(), atol=1e-5, rtol=1e-5)
    assert model.scale == pytest.approx(math.exp(4.0))
    metrics = api.evaluate("zero-shot", f"uta:{file}", data="digits:test", limit=20)["metrics"]
    assert 0 <= metrics["top1"] <= 1


def test_a_run_starts_from_the_released_weights(file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = api.make_recipe("clip_tiny", data="scenes", steps=1, init=f"uta:{file}", settings=START)
    pretraining.start(recipe, tmp_path / "run", [], said.append)
    assert any(", 0 left as they were" in line for line in said), said
    begun, released = load(f"{tmp_path / 'run'}@0"), load(f"uta:{file}")
    pixels = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(begun.tokens(pixels, "joint").pooled, released.tokens(pixels, "joint").pooled)
    torch.testing.assert_close(begun.text(WORDS), released.text(WORDS))
    assert not load(str(tmp_path / "run")).text(WORDS).equal(begun.text(WORDS)), "both towers learn"


def test_a_student_of_a_released_teacher_keeps_its_texts(file: Path, tmp_path: Path) -> None:
    settings = SMALL | {"models.student.depth": "1", "models.student.width": "32"}
    recipe = api.make_recipe("uta_tiny", data="digits", steps=1, teacher=f"uta:{file}", settings=settings)
    pretraining.start(recipe, tmp_path / "run", [], lambda line: None)
    released = load(f"uta:{file}")
    assert load(str(tmp_path / "run")).text(WORDS).equal(released.text(WORDS))
    recipe = api.make_recipe("clip_tiny", data="scenes", init=str(tmp_path / "run"), settings=START)
    prepared = pretraining.prepare(recipe, None)
    with pytest.raises(UserError, match="another shape"):  # its student is another architecture
        pretraining.initialise_from(prepared.objective, prepared.recipe, str(tmp_path / "run"))


def test_what_is_no_released_checkpoint(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*nowhere"):
        load("uta:nowhere.safetensors")
    (tmp_path / "uta.pt").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"uta.pt is a pickle"):
        load(f"uta:{tmp_path / 'uta.pt'}")
    save_file({"visual.cls_token": torch.zeros(1, 1, 4)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not a checkpoint in the layout that UTA released: it has no patch_embed"):
        load(f"uta:{tmp_path / 'other.safetensors'}")
    with pytest.raises(UserError, match="give --train SRC"):
        api.evaluate("knn", f"uta:{file}", data="digits:test")
