"""timm's VisionTransformer and EVA-02 as encoders that can drop or replace given cells.

No transformer is written here: hidden cells leave through timm's own `patch_drop` slot, which also gathers EVA-02's
rotary table, and mask tokens enter by a hook on its patch embedding.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from onestage.encoders.initialise import Initialisation, fix_positions, initialise
from onestage.layers.attention import unfuse_without_gpu
from onestage.layers.looks import looks_of
from onestage.layers.normalise import Normalise, Statistics
from onestage.layers.outputs import outputs_of
from onestage.layers.relative_bias import RelativeBias
from onestage.layers.slots import KeepCells, MaskToken, other_grid, slowed
from onestage.layers.stem import ConvStem
from onestage.ops import place_of, shown, sincos_2d, sines, tubes
from onestage.roles import Encoder
from onestage.spec import UserError, spec
from onestage.types import Grid, Images, Layer, Piece, Tokens

Pool = Literal["cls", "mean", "all", "map"]


@final
@spec
class Vit:
    """A timm VisionTransformer or EVA-02; fields left empty keep the architecture's own numbers."""

    arch: str = "vit_base_patch16_224"
    """timm's name of the architecture: `vit_*`, `deit3_*` or `eva02_*`."""
    size: int | None = None
    """Side of the image in pixels; empty: the size whose grid equals the teacher's, else the architecture's."""
    patch: int | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_ratio: float | None = None
    pool: Pool = "cls"
    """The class token, the mean of the patches, the mean of both (FLIP), or attention of a learned query (SigLIP; for
    an architecture of timm that has it, such as vit_base_patch16_siglip_224)."""
    class_tokens: Literal[0, 1, 2] = 1
    """Two: the second is DeiT's distillation token (arXiv:2012.12877), which `projectors: {kind: second}` reads."""
    positions: Literal["learned", "sincos", "sines", "relative"] = "learned"
    """Added to the patches: trained, MAE's fixed sines of row and column, or sines of the patch's number. `relative`:
    BEiT's bias of attention, one for all blocks."""
    frames: Annotated[int, Field(ge=1)] = 1
    """Of the clips it looks at: every patch attends to those of all frames."""
    tubelet: Annotated[int, Field(ge=1)] = 1
    """How many frames after one another a patch is made of (VideoMAE, arXiv:2203.12602: 2)."""
    stem: Literal["patch", "conv"] = "patch"
    drop_path: float = 0.0
    drop_path_shape: Literal["linear", "constant"] = "linear"
    """Over depth: from 0 up to it, or the same in every block (DeiT III)."""
    attention_dropout: float = 0.0
    layer_scale: float | None = None
    init: Initialisation = "timm"
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """Deviation of the normal that `init: beit` draws from."""
    stem_gradient: Annotated[float, Field(ge=0, le=1)] = 1.0
    """What share of its gradient the patch embedding gets (EVA-02 lets it learn at a tenth)."""
    normalise: Statistics = "imagenet"
    kind: Literal["vit"] = "vit"

    def __post_init__(self) -> None:
        if self.frames % self.tubelet:
            raise ValueError(f"frames: {self.frames} are not filled by tubelets of {self.tubelet}")
        if self.frames > 1 and (self.stem != "patch" or self.positions == "relative"):
            raise ValueError("frames: clips need stem: patch, and positions: learned, sincos or sines")

    def build(self, modes: frozenset[str]) -> VitEncoder:
        """The encoder, with a mask token only where an input of it asks for `replace`.

        Raises:
            UserError: for an architecture that timm lacks or that has no slot for dropping.
        """
        return VitEncoder(self, _backbone(self), modes)


def _backbone(wanted: Vit) -> Any:
    import timm
    from timm.models import is_model_in_modules

    names = {
        "img_size": wanted.size if wanted.frames == 1 else _below_one_another(wanted),
        "in_chans": 3 * wanted.tubelet if wanted.tubelet > 1 else None,
        "patch_size": wanted.patch,
        "embed_dim": wanted.width,
        "depth": wanted.depth,
        "num_heads": wanted.heads,
        "mlp_ratio": wanted.mlp_ratio,
        "init_values": wanted.layer_scale,
        "attn_drop_rate": wanted.attention_dropout or None,
        "pos_embed": "none" if wanted.positions == "relative" else None,
        "reg_tokens": 1 if wanted.class_tokens == 2 else None,
        "class_token": False if wanted.class_tokens == 0 else None,
    }
    options = {name: value for name, value in names.items() if value is not None}
    if wanted.arch not in timm.list_models():
        near = timm.list_models(f"*{wanted.arch.split('_')[0]}*patch*")[:5]
        raise UserError(f"timm has no model '{wanted.arch}'; for example {', '.join(near)}")
    if not is_model_in_modules(wanted.arch, {"vision_transformer", "eva", "deit"}):
        raise UserError(
            f"{wanted.arch} is not a VisionTransformer or EVA-02 of timm; choose a vit_*, deit3_* or eva02_* model"
        )
    if wanted.positions == "relative" and not is_model_in_modules(wanted.arch, {"vision_transformer", "deit"}):
        raise UserError(f"positions: relative is for vit_* models; {wanted.arch} has rotary positions of its own")
    _check_tokens(wanted)
    try:
        pool = "map" if wanted.pool == "map" else "token" if wanted.class_tokens else ""
        made = timm.create_model(
            wanted.arch, num_classes=0, global_pool=pool, drop_path_rate=wanted.drop_path, **options
        )
        return alike(made, wanted.drop_path) if wanted.drop_path_shape == "constant" else made
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot build {wanted.arch} with {options}: {error}") from None


def _below_one_another(wanted: Vit) -> tuple[int, int]:
    """Height and width of a clip whose tubelets are pictures one below another."""
    assert wanted.size is not None, "a recipe fills in the sizes of its encoders before they are built"
    return wanted.frames // wanted.tubelet * wanted.size, wanted.size


def _check_tokens(wanted: Vit) -> None:
    """A second class token stands where timm has one register token, and clips are for the same models."""
    from timm.models import is_model_in_modules

    if wanted.class_tokens == wanted.frames == 1:
        return
    if wanted.class_tokens == 0 and wanted.pool in {"cls", "all"}:
        raise UserError(f"pool: {wanted.pool} reads a class token, and class_tokens: 0 leaves none; use pool: mean")
    taken = "_reg" in wanted.arch or "distilled" in wanted.arch
    if taken or wanted.positions == "relative" or not is_model_in_modules(wanted.arch, {"vision_transformer", "deit"}):
        asked = f"frames: {wanted.frames}" if wanted.class_tokens == 1 else f"class_tokens: {wanted.class_tokens}"
        raise UserError(
            f"{asked} is for vit_*, deit_* or deit3_* models with one class token of their own, and with positions: "
            f"learned, sincos or sines; this is {wanted.arch} with positions: {wanted.positions}"
        )


def alike(backbone: Any, rate: float) -> Any:
    """The backbone with one rate of drop path in all of its blocks."""
    from timm.layers import DropPath

    for block in backbone.blocks:
        block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
    return backbone


@final
class VitEncoder(Encoder):
    """Rows after the final norm, the class token (or their mean) as the pooled row."""

    def __init__(self, wanted: Vit, backbone: Any, modes: frozenset[str]) -> None:
        from timm.models.eva import Eva

        super().__init__()
        self.backbone = backbone
        self.pool: Pool = wanted.pool
        self.width = int(backbone.embed_dim)
        self.size = int(backbone.patch_embed.img_size[1])
        self.frames, self.tubelet = wanted.frames, wanted.tubelet
        self.grid: Grid = tuple(backbone.patch_embed.grid_size)
        self.prefix, self.class_tokens = int(backbone.num_prefix_tokens), wanted.class_tokens
        self.normalise = Normalise(wanted.normalise)
        initialise(backbone, wanted.init, len(backbone.blocks), wanted.init_std)
        if wanted.class_tokens == 2:
            nn.init.trunc_normal_(backbone.reg_token, std=0.02)
        self.rel_pos = None
        if wanted.positions == "relative":
            self.rel_pos = RelativeBias(self.grid, int(backbone.blocks[0].attn.num_heads))
        if wanted.positions in {"sincos", "sines"}:
            cells = self.grid[0] * self.grid[1]
            table = sincos_2d(self.width, self.grid) if wanted.positions == "sincos" else sines(self.width, cells)
            fix_positions(backbone.pos_embed, table, self.prefix)
        if wanted.stem == "conv":
            backbone.patch_embed = ConvStem(self.size, self.size // self.grid[0], self.width)
        self.keep = KeepCells(self.prefix, "rows and cells" if isinstance(backbone, Eva) else "rows")
        self.backbone.patch_drop = self.keep
        if wanted.stem_gradient < 1:
            backbone.patch_embed.register_forward_hook(partial(slowed, wanted.stem_gradient))
        self.mask = MaskToken(self.width) if "replace" in modes else None
        if self.mask is not None:
            backbone.patch_embed.register_forward_hook(self.mask)
        unfuse_without_gpu(backbone)

    def forward(self, parts: dict[str, Piece]) -> Tokens:
        (piece,) = parts.values()
        view = piece.view
        assert view is not None, "an image encoder is given a view"
        grid = self._grid_of(view.pixels)
        cells = visible_cells(piece, grid or self.grid, view.pixels)
        last = self.backbone.blocks[-1].attn if piece.attention else None
        blocks = outputs_of(self.backbone.blocks, piece.layers)
        slots, other = _Slots(self.keep, self.mask, piece, cells), other_grid(self.backbone, grid)
        added = self._added(piece, cells)
        with slots, other, blocks as outputs, looks_of(last) as looks:
            pixels = self.normalise(view.pixels)
            pixels = tubes(pixels, self.tubelet) if self.tubelet > 1 else pixels
            rows = self.backbone.forward_features(pixels, attn_mask=added)
        patches, pooled = self._split(rows)
        layers = tuple(Layer(*self._split(output)) for output in outputs)
        normed = tuple(Layer(*self._split(self.backbone.norm(output))) for output in outputs)
        attention = looks[0][:, self.prefix :] if looks else None
        place = place_of(cells)
        place = place._replace(frame=cells // self.grid[1] ** 2) if self.frames > 1 else place
        tokens = Tokens(patches, pooled, place, grid or self.grid, view.geometry, layers, normed, attention)
        tokens = tokens._replace(second=rows[:, 1] if self.class_tokens == 2 else None)
        return tokens._replace(bias=added) if layers else tokens

    def _grid_of(self, pixels: Images) -> Grid | None:
        """The grid of images of another size; None: they are of the encoder's own.

        Raises:
            UserError: when patches do not fill them, or the positions cannot be resampled.
        """
        side, patch = pixels.shape[-1], self.size // self.grid[1]
        if side == self.size:
            return None
        if side % patch or self.rel_pos is not None or self.keep.answer != "rows":
            raise UserError(
                f"encoder of {self.size} pixels was given {side}: another size must be filled by patches of {patch}, "
                "and positions have to be learned or sincos ones of a vit_* model"
            )
        return side // patch, side // patch

    def last_norm(self) -> nn.Module | None:
        """The norm behind its last block."""
        return self.backbone.norm

    def _split(self, rows: Float[Tensor, "b p d"]) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b d"]]:
        """The rows of the cells, and the pooled row."""
        patches = rows[:, self.prefix :]
        if self.pool == "map":
            return patches, self.backbone.attn_pool(patches)
        if self.pool == "cls":
            return patches, rows[:, 0]
        return patches, (patches if self.pool == "mean" else rows).mean(dim=1)

    def alone(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Each row as the pooled row of an image of which it is the only one: what joins an image's text is the pooled
        row, and attention over one row is exact, where the mean of rows and a class token leave a row as it is."""
        return self.backbone.attn_pool(rows.flatten(0, 1).unsqueeze(1)).view_as(rows) if self.pool == "map" else rows

    def _added(self, piece: Piece, cells: Tensor) -> Tensor | None:
        """What is added to the logits of the attention: relative positions, and what keeps mixed images apart."""
        added = None if self.rel_pos is None else self.rel_pos(cells if piece.mode == "drop" else None)
        if piece.owner is not None:
            added = apart(piece.owner, self.prefix) if added is None else added + apart(piece.owner, self.prefix)
        if added is None or added.is_meta:  # which knows no autocast: sizes are counted there
            return added
        kind = added.device.type
        return added.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else added


def apart(owner: Bool[Tensor, "b g"], prefix: int) -> Float[Tensor, "b 1 m m"]:
    """Minus infinity where attention is forbidden in mixed images that are kept apart: a cell sees neither the other
    image nor the class token, which sees both."""
    batch, count = owner.shape
    forbidden = torch.zeros(batch, 1, prefix + count, prefix + count, device=owner.device)
    cells = forbidden[:, 0, prefix:]
    cells[:, :, prefix:].masked_fill_(owner.unsqueeze(1) != owner.unsqueeze(2), -torch.inf)
    cells[:, :, :prefix] = -torch.inf
    return forbidden


@final
class _Slots:
    """Fills both slots for one forward pass, and empties them whatever happens."""

    def __init__(self, keep: KeepCells, mask: MaskToken | None, piece: Piece, cells: Tensor) -> None:
        self.keep, self.mask, self.piece, self.cells = keep, mask, piece, cells

    def __enter__(self) -> None:
        if self.piece.mode == "drop":
            self.keep.cells = self.cells
        elif self.piece.mode == "replace" and self.mask is not None:
            self.mask.hidden = self.piece.hidden

    def __exit__(self, *_: object) -> None:
        self.keep.cells = None
        if self.mask is not None:
            self.mask.hidden = None


def visible_cells(piece: Piece, grid: Grid, like: Tensor) -> Tensor:
    """The cells of the rows an encoder returns: those kept by `drop`, else the whole grid, row-major."""
    count = grid[0] * grid[1]
    if piece.mode == "drop" and piece.hidden is not None:
        return shown(piece.hidden, count - piece.hides)
    return torch.arange(count, device=like.device).expand(like.shape[0], -1)
