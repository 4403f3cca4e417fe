"""FLOPs of UTA's students as built on the meta device, against a closed form and table 8 of arXiv:2405.19009."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from onestage import recipes
from onestage.encoders import Vit
from onestage.types import Geometry, Piece, View

CELLS = 256
SHAPES = {"uta_b14": (768, 12, 2048), "uta_l14": (1024, 24, 2730), "uta_g14": (1408, 40, 4096)}
"""Width, depth and width of the SwiGLU's inside."""


def counted(name: str, hides: int) -> int:
    """Forward FLOPs of the recipe's student on one image of which some cells are dropped."""
    model = recipes.recipe(name).models["student"]
    assert isinstance(model, Vit)
    with torch.device("meta"):
        encoder = model.build(frozenset())
        view = View(torch.rand(1, 3, 224, 224), Geometry(torch.zeros(1, 4), torch.zeros(1, dtype=torch.bool)))
        hidden = torch.zeros(1, CELLS, dtype=torch.bool)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder({"image": Piece(view, hidden=hidden, hides=hides, mode="drop")})
    return counter.get_total_flops()


def closed_form(name: str, hides: int) -> int:
    """Two a multiply-add: patches of all cells; query, key, value, projection, scores and values, and three matrices
    of the SwiGLU, for the class token and the cells that stay."""
    width, depth, inside = SHAPES[name]
    tokens = CELLS - hides + 1
    block = 4 * tokens * width * width + 2 * tokens * tokens * width + 3 * tokens * width * inside
    return 2 * (CELLS * 14 * 14 * 3 * width + depth * block)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("hides", [0, 102, 128])
def test_the_built_students_cost_what_the_closed_form_says(name: str, hides: int) -> None:
    assert counted(name, hides) == pytest.approx(closed_form(name, hides), rel=0.002)


@pytest.mark.parametrize(("ratio", "relative"), [(0.0, 1.0), (0.4, 0.6), (0.5, 0.5), (0.7, 0.3)])
def test_the_cost_column_of_table_8(ratio: float, relative: float) -> None:
    """To the one decimal that the table gives."""
    assert round(counted("uta_b14", round(ratio * CELLS)) / counted("uta_b14", 0), 1) == relative


def test_a_step_costs_three_forwards_of_the_student_and_one_of_the_teacher() -> None:
    """GFLOP an image and step, as the recipes' notes say: EVA-01's g/14 has 1408 x 40 and a feed-forward of 6144."""
    width, depth, inside, tokens = 1408, 40, 6144, CELLS + 1
    block = 4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * inside
    teacher = 2 * (CELLS * 14 * 14 * 3 * width + depth * block + tokens * width * 1024)
    for name, hides, noted in (("uta_b14", 102, 618e9), ("uta_l14", 128, 775e9)):
        assert 3 * counted(name, hides) + teacher == pytest.approx(noted, rel=0.02)
