"""BEiT-3: the multiway encoder against loops in double precision, hidden words, and what its four terms see."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from full_width import steps
from onestage import pretraining, recipes
from onestage.encoders import Multiway
from onestage.encoders.experts import as_experts
from onestage.methods import METHODS
from onestage.objective import Answers, Method
from onestage.spec import UserError, from_plain, to_plain
from onestage.teachers import load
from onestage.types import Geometry, Piece, View, Words
from onestage.views import SomeWords
from small import MULTIWAY, VIT, lean, small
from stepping import brief_codes, brief_teacher, tensors
from test_objective import answers_for, batch_for, objective_for

SMALL = Multiway(size=8, patch=4, width=8, depth=2, heads=2, mlp_ratio=2.0, context=5, vocabulary=20, normalise="none")
GEOMETRY = Geometry(torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool))
IDS = torch.tensor([[18, 3, 4, 19, 0], [18, 7, 19, 0, 0]])
HIDDEN_CELLS = torch.tensor([[True, False, False, True], [False, True, False, False]])
HIDDEN_WORDS = torch.tensor([[False, True, False, False, False], [False, True, False, False, False]])


def filled(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4, generator=draw)
    return module.double().eval()


def normed(row: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = (row - row.mean()) / (((row - row.mean()) ** 2).mean() + 1e-5).sqrt()
    return centred * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def mapped(row: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return weights[f"{name}.weight"] @ row + weights[f"{name}.bias"]


def blocks(rows: list[Tensor], experts: list[str], real: list[bool], weights: dict[str, Tensor]) -> list[Tensor]:
    """Attention of all rows over the real ones, then each row's own expert."""
    for number in range(2):
        block = {key[9:]: value for key, value in weights.items() if key.startswith(f"blocks.{number}.")}
        first, after = [normed(row, block, "norm") for row in rows], []
        for row, inner, expert in zip(rows, first, experts, strict=True):
            read = []
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                query = mapped(inner, block, "attn.q_proj")[part]
                scores = [
                    math.exp(float(query @ mapped(other, block, "attn.k_proj")[part]) / 2) * seen
                    for other, seen in zip(first, real, strict=True)
                ]
                values = [mapped(other, block, "attn.v_proj")[part] for other in first]
                read.append(sum(s / sum(scores) * value for s, value in zip(scores, values, strict=True)))
            row = row + mapped(normed(torch.cat(read), block, "attn.norm"), block, "attn.proj")
            inside = gelu(mapped(normed(row, block, f"{expert}.norm"), block, f"{expert}.mlp.fc1"))
            after.append(row + mapped(normed(inside, block, f"{expert}.mlp.norm"), block, f"{expert}.mlp.fc2"))
        rows = after
    return [normed(row, weights, "norm") for row in rows]


@torch.no_grad()
@pytest.mark.parametrize("shows", ["image", "text", "both"])
def test_a_multiway_encoder_equals_loops(shows: str) -> None:
    encoder = filled(SMALL.build(frozenset({"replace"})))
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    image = Piece(View(pixels, GEOMETRY), hidden=HIDDEN_CELLS, hides=2, mode="replace")
    text = Piece(None, Words(IDS, torch.arange(2)), hidden=HIDDEN_WORDS, mode="replace")
    parts = {"image": {"a": image}, "text": {"b": text}, "both": {"b": text, "a": image}}[shows]
    found, weights = encoder(parts), dict(encoder.state_dict())
    for sample in range(2):
        rows, experts, real = [], [], []
        if shows != "text":
            rows.append(weights["cls_token"][0, 0] + weights["pos_embed"][0, 0])
            for cell in range(4):
                top, left = 4 * (cell // 2), 4 * (cell % 2)
                patch = pixels[sample, :, top : top + 4, left : left + 4]
                row = (weights["patch_embed.proj.weight"] * patch).sum(dim=(1, 2, 3))
                row = weights["mask.token"][0] if HIDDEN_CELLS[sample, cell] else row + weights["patch_embed.proj.bias"]
                rows.append(row + weights["pos_embed"][0, cell + 1])
            experts, real = ["image"] * 5, [True] * 5
        if shows != "image":
            for place, number in enumerate(IDS[sample].tolist()):
                row = weights["mask.token"][1] if HIDDEN_WORDS[sample, place] else weights["words.weight"][number]
                rows.append(row + weights["word_positions"][0, place])
                real.append(number != 0)
            experts = [*experts, *["text"] * 5]
        expected = torch.stack(blocks(rows, experts, real, weights))
        torch.testing.assert_close(found.pooled[sample], expected[0])
        torch.testing.assert_close(found.rows[sample], expected if shows == "text" else expected[1:])
    cells, words = list(range(4)), list(range(5))
    places = {"image": cells, "text": words, "both": cells + words}[shows]
    assert found.place.cell[0].tolist() == places
    kinds = {"image": [0] * 4, "text": [1] * 5, "both": [0] * 4 + [1] * 5}[shows]
    assert found.place.modality[0].tolist() == kinds and found.grid == ((1, 5) if shows == "text" else (2, 2))


def test_a_share_of_the_words_is_hidden() -> None:
    """Never start, end or what is no word; each other word alike, that with number 0 (CLIP's `!`) too, and as many as
    the text's length says."""
    hide, hits = SomeWords(ratio=0.5), torch.zeros(2, 8)
    words = torch.tensor([[90, 1, 0, 3, 4, 0, 91, 0], [90, 1, 91, 0, 0, 0, 0, 0]])
    for draw in range(400):
        noise = torch.from_numpy(np.stack([hide.noise(np.random.default_rng(2 * draw + one)) for one in range(2)]))
        hidden = hide.choose(noise, words)
        assert hidden.sum(dim=1).tolist() == [3, 1]
        hits += hidden
    assert hits[:, 0].eq(0).all() and hits[0, 6:].eq(0).all() and hits[1].tolist() == [0, 400, 0, 0, 0, 0, 0, 0]
    assert ((hits[0, 1:6] / 400 - 0.6).abs() < 0.12).all()
    assert hide.count((1, 8)) == 3 and SomeWords(ratio=0.15).count((1, 64)) == 9
    empty = hide.choose(torch.rand(1, 512), torch.tensor([[90, 91, 0]]))
    assert not empty.any()
    with pytest.raises(UserError, match="at most 512 words, not 600"):
        hide.choose(torch.rand(1, 512), torch.ones(1, 600, dtype=torch.long))


def test_pairs_are_told_apart_by_loops() -> None:
    """Each term is the cross-entropy at what its own input hides: codes of cells, or numbers of words."""
    row = lean(METHODS["beit3"])
    objective, batch, answers = objective_for(row).eval(), batch_for(row), answers_for(row)
    ids = batch.words.ids.clone()
    ids[1, 9:], ids[2, 4:] = 0, 0
    batch = batch._replace(words=batch.words._replace(ids=ids))
    losses, ((_, answer),) = objective(batch, answers), answers.items()
    encoder = objective.encoder("student")
    hidden = {
        name: row.inputs[name].parts["text"].hide.choose(batch.noise[f"{name}/text"], ids) for name in ("text", "pair")
    }
    for term, name in (("image", "image"), ("text", "text"), ("pair_image", "pair"), ("pair_text", "pair")):
        parts = {}
        if name != "text":
            parts["image"] = Piece(batch.views["view1"], hidden=batch.hidden[f"{name}/image"], mode="replace")
        if name != "image":
            parts["text"] = Piece(None, batch.words, hidden=hidden[name], mode="replace")
        rows = encoder(parts).rows
        of_text = "text" in term
        rows = rows[:, -ids.shape[1] :] if of_text else rows[:, :36]
        chosen = hidden[name] if of_text else batch.hidden[f"{name}/image"]
        truth = ids if of_text else answer.rows[..., 0].long()
        logits = objective.predictor(term).map(rows).detach().double()
        costs = [
            -logits[sample, place].log_softmax(dim=0)[truth[sample, place]]
            for sample, place in chosen.nonzero().tolist()
        ]
        assert losses.terms[term].item() == pytest.approx(float(sum(costs) / len(costs)), rel=1e-4), term
    assert objective.predictor("pair_text") is objective.predictor("text")


def test_a_sample_without_text_costs_its_image_alone() -> None:
    row = lean(METHODS["beit3"])
    objective, batch, answers = objective_for(row).eval(), batch_for(row), answers_for(row)
    given = torch.tensor([True, True, False, True])
    batch = batch._replace(words=batch.words._replace(given=given))
    weights = {name: target.weight for name, target in objective.represent(batch, answers).targets.items()}
    assert weights["image"] is None
    for name in ("text", "pair_image", "pair_text"):
        assert weights[name].sum(dim=1).gt(0).tolist() == given.tolist()


def test_what_does_not_go_together_is_said() -> None:
    plain = to_plain(METHODS["beit3"])
    plain["inputs"]["pair"]["parts"]["text"]["hide"] = {"kind": "random", "ratio": 0.5}
    with pytest.raises(UserError, match="words is how a text hides"):
        from_plain(Method, plain)
    plain = to_plain(METHODS["beit3"])
    plain["terms"]["pair_text"]["x"] = "pair"
    with pytest.raises(UserError, match=r"terms.pair_text.x: there is no 'pair'.*pair/image"):
        from_plain(Method, plain)
    with pytest.raises(UserError, match="whole images and texts"):
        SMALL.build(frozenset({"drop"}))


def test_a_run_is_a_model_of_images(tmp_path: Path) -> None:
    codes = brief_codes(brief_teacher(tmp_path))
    pretraining.start(small("beit3", steps=1, teachers={"teacher": codes}), tmp_path / "beit3", [])
    model = load(str(tmp_path / "beit3"))
    assert model.tokens(torch.rand(2, 3, 32, 32), "raw").rows.shape == (2, 16, 32)


@torch.no_grad()
@pytest.mark.parametrize("scale", [None, 0.3])
def test_vision_experts_start_from_a_vit(scale: float | None) -> None:
    """Without the norms that no ViT has, images are encoded alike, and a run starts from there."""
    vit = dataclasses.replace(VIT, layer_scale=scale).build(frozenset())
    grown = MULTIWAY.build(frozenset({"replace"}))
    given = as_experts(dict(filled(vit).state_dict()))
    missing, unexpected = grown.load_state_dict(given, strict=False)
    assert unexpected == [] and all(
        ".text." in key or "word" in key or ".norm." in key or "mask" in key for key in missing
    )
    for block in grown.double().eval().blocks:
        block.attn.norm = block.image.mlp.norm = nn.Identity()
    for norm in (one for one in grown.modules() if isinstance(one, nn.LayerNorm)):
        norm.eps = 1e-6
    piece = {"image": Piece(View(torch.rand(2, 3, 32, 32).double(), GEOMETRY))}
    torch.testing.assert_close(grown(piece).rows, vit(piece).rows)
    torch.testing.assert_close(grown(piece).pooled, vit(piece).pooled)


def test_a_run_starts_from_the_image_tower_of_its_tokenizer(tmp_path: Path) -> None:
    codes = brief_codes(brief_teacher(tmp_path))
    recipe = small("beit3", steps=1, teachers={"teacher": codes}, init=codes)
    pretraining.start(recipe, tmp_path / "beit3", [])
    tower, own = tensors(Path(codes), 2), tensors(tmp_path / "beit3", 0)
    name = "model.encoders.student."
    query, key, value = tower[f"{name}backbone.blocks.1.attn.qkv.weight"].chunk(3)
    found = [own[f"{name}blocks.1.attn.{part}_proj.weight"] for part in "qkv"]
    assert all(torch.equal(one, other) for one, other in zip((query, key, value), found, strict=True))
    assert torch.equal(own[f"{name}blocks.0.image.mlp.fc2.bias"], tower[f"{name}backbone.blocks.0.mlp.fc2.bias"])


def test_two_steps_at_full_width_and_the_numbers_of_beit3() -> None:
    recipe = recipes.recipe("beit3_b16")
    (group,) = recipe.optimiser.groups.values()
    assert (recipe.batch, recipe.steps, group.lr, group.betas) == (2048, 1_000_000, 1e-3, (0.9, 0.98))
    assert recipe.schedule.warmup_steps(1_000_000) == 10_000
    done, still = steps(recipe, Answers((14, 14), 512, 768, 8192))
    for name, count in {"image": 8192, "text": 49408, "pair_image": 8192, "pair_text": 49408}.items():
        assert done[0].losses.terms[name].item() == pytest.approx(math.log(count), abs=0.8)
    assert still == []
