"""DALL-E's tokenizer against transformers' network of the same design, under both kinds of names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.flava.configuration_flava import FlavaImageCodebookConfig
from transformers.models.flava.modeling_flava import FlavaImageCodebook

from onestage import pretraining
from onestage.spec import UserError
from onestage.teachers import DalleTeacher, load
from onestage.teachers.serving.key import teacher_digest
from small import small

CODES = 24


def network() -> FlavaImageCodebook:
    """Random, loud enough that the blocks count beside what passes them by."""
    torch.manual_seed(0)
    made = FlavaImageCodebook(FlavaImageCodebookConfig(hidden_size=8, vocab_size=CODES)).eval()
    for name, parameter in made.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=2.0 * parameter[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def released(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the released module: no `group`, no `path`, and w and b for weight and bias."""
    found = {}
    for key, value in weights.items():
        name = key.replace(".group.", ".").replace(".path.", ".")
        found[name.removesuffix("eight").removesuffix("ias")] = value
    return found


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    weights = {key: value.clone() for key, value in network().state_dict().items()}
    save_file(weights, tmp_path / "flava.safetensors")
    save_file(released(weights), tmp_path / "dalle.safetensors")
    return tmp_path / "dalle.safetensors", tmp_path / "flava.safetensors"


def test_codes_are_those_of_transformers(files: tuple[Path, Path]) -> None:
    pixels = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    reference = network()
    expected = reference.get_codebook_indices(0.8 * pixels + 0.1).flatten(1)
    assert len(expected.unique()) > 5
    for file in files:
        teacher = load(f"dalle:{file}")
        assert isinstance(teacher, DalleTeacher) and teacher.grid == (14, 14)
        assert (teacher.codes, teacher.width("codes"), teacher.width("raw")) == (CODES, CODES, 64)
        assert torch.equal(teacher.tokens(pixels, "codes").rows[..., 0].long(), expected)
        rows = teacher.tokens(pixels, "raw").rows
        scores = rows @ reference.blocks.output.conv.weight[:, :, 0, 0].T + reference.blocks.output.conv.bias
        assert torch.equal(scores.argmax(dim=2), expected)
    first, second = (teacher_digest(load(f"dalle:{file}")) for file in files)
    assert first == second, "the same weights under other names"


def test_a_view_is_brought_to_112_pixels(files: tuple[Path, Path]) -> None:
    teacher, pixels = load(f"dalle:{files[0]}"), torch.rand(1, 3, 224, 224)
    small_ones = torch.nn.functional.interpolate(pixels, (112, 112), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(teacher.tokens(pixels, "codes").rows, teacher.tokens(small_ones, "codes").rows)
    for stored in ((255 * pixels).byte(), (255 * small_ones).byte()):
        assert torch.equal(teacher.tokens(stored, "codes").rows, teacher.tokens(stored / 255, "codes").rows)


def test_what_it_cannot_do_is_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    teacher, pixels = load(f"dalle:{files[0]}"), torch.rand(1, 3, 112, 112)
    with pytest.raises(UserError, match="no space that it shares with texts"):
        teacher.tokens(pixels, "joint")
    with pytest.raises(UserError, match="has no text tower"):
        teacher.text(["a seven"])
    weights = released(network().state_dict())
    save_file(
        {key: value for key, value in weights.items() if "group_3.block_1" not in key}, tmp_path / "a.safetensors"
    )
    with pytest.raises(UserError, match=r"not DALL-E's encoder: it has no group_3.block_1.*docs/teachers.md"):
        load(f"dalle:{tmp_path / 'a.safetensors'}")
    wrong = weights | {"blocks.group_1.block_1.res_path.conv_1.w": torch.zeros(2, 8, 5, 5)}
    save_file({key: value.contiguous() for key, value in wrong.items()}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="not DALL-E's encoder: size mismatch"):
        load(f"dalle:{tmp_path / 'b.safetensors'}")
    (tmp_path / "encoder.pkl").write_bytes(b"x")
    with pytest.raises(UserError, match="is a pickle"):
        load(f"dalle:{tmp_path / 'encoder.pkl'}")


def test_beit_learns_its_codes(files: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = small("beit", steps=2, batch=2, vit={"size": 112}, teachers={"teacher": f"dalle:{files[0]}"})
    pretraining.start(recipe, tmp_path / "run", [])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("loss/codes" in line for line in lines)
