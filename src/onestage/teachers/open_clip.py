"""An open_clip model from local files as a frozen model: dense rows and the pooled row, raw and in the joint space.

A CLS-pooled tower projects every row as it projects its class token (EVA, arXiv:2211.07636, sec. 2.1; UTA sec. 2.2),
so the pooled joint row equals `encode_image`. Towers that pool otherwise are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from onestage.encoders import ClipText
from onestage.encoders.words import Tokenizer
from onestage.layers.normalise import STATISTICS
from onestage.ops import place_of
from onestage.roles import Space, Teacher
from onestage.spec import UserError
from onestage.teachers.bundle import TextSide
from onestage.teachers.resize import Interpolation, to_size, whole
from onestage.types import Grid, Tokens


@final
class OpenClipTeacher(Teacher):
    """A frozen open_clip model with its own size, interpolation and normalisation."""

    def __init__(
        self, reference: str, model: Any, text: tuple[ClipText, TextTransformer], device: torch.device
    ) -> None:
        self.reference = reference
        self.model: Any = model.requires_grad_(False).eval().to(device)
        self.tower: Any = model.visual
        native = isinstance(model.visual, VisionTransformer)
        self.trunk = None if native else self.tower.trunk
        config = self.tower.preprocess_cfg
        size = config["size"]
        self.size = int(size[0] if isinstance(size, (tuple, list)) else size)
        self.interpolation: Interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        self.mean = torch.tensor(config["mean"], device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(config["std"], device=device).view(1, 3, 1, 1)
        grid = self.tower.grid_size if self.trunk is None else self.trunk.patch_embed.grid_size
        self.grid: Grid = (int(grid[0]), int(grid[1]))
        self.prefix = 1 if self.trunk is None else int(self.trunk.num_prefix_tokens)
        self.licence = "see the model card of the weights"
        self.scale = float(model.logit_scale.exp())
        self.has_text = self.has_joint = True
        self.statistics = _statistics(config["mean"], config["std"])
        self.templates: tuple[str, ...] = ()
        self.text_spec = text[0]
        self.text_tower = text[1].requires_grad_(False).eval().to(device)
        self.tokenizer = Tokenizer(self.text_spec.context)

    def parts(self) -> tuple[nn.Module, ...]:
        return (self.model, self.text_tower)

    def width(self, space: Space) -> int:
        if space == "joint":
            return self.text_spec.joint
        return int(self.tower.ln_post.normalized_shape[0] if self.trunk is None else self.trunk.embed_dim)

    @torch.no_grad()
    def tokens(self, pixels: Float[Tensor, "b c h w"], space: Space) -> Tokens:
        images = (to_size(pixels, self.size, self.interpolation) - self.mean) / self.std
        rows = self._native(images) if self.trunk is None else self.trunk.forward_features(images)
        if space == "joint":
            rows = rows @ self.tower.proj if self.trunk is None else self.trunk.head(self.trunk.fc_norm(rows))
        patches = rows[:, self.prefix :]
        cells = torch.arange(patches.shape[1], device=pixels.device).expand(pixels.shape[0], -1)
        return Tokens(patches, rows[:, 0], place_of(cells), self.grid, whole(pixels))

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        return self.text_tower(self.tokenizer(texts).to(self.mean.device))

    def text_weights(self) -> tuple[TextSide, dict[str, Tensor]]:
        """The text tower as a run copies it."""
        side = TextSide(encoder=self.text_spec, scale=self.scale)
        return side, {f"tower.{key}": value for key, value in self.text_tower.state_dict().items()}

    def _native(self, images: Tensor) -> Tensor:
        answer = self.tower.forward_intermediates(
            images,
            indices=1,
            normalize_intermediates=True,
            output_fmt="NLC",
            output_extra_tokens=True,
            intermediates_only=True,
        )
        return torch.cat([answer["image_intermediates_prefix"][-1], answer["image_intermediates"][-1]], dim=1)


def _statistics(mean: Sequence[float], std: Sequence[float]) -> str:
    """The name of these statistics, or `own`."""
    for name, known in STATISTICS.items():
        if all(abs(a - b) < 1e-6 for a, b in zip([*mean, *std], [*known[0], *known[1]], strict=True)):
            return name
    return "own"


def load_open_clip(reference: str, name: str, weights: str | None, device: torch.device) -> OpenClipTeacher:
    """An open_clip model by architecture and file, or `local-dir:DIR`.

    Raises:
        UserError: when it cannot be loaded, or its tower gives no exact dense rows in the joint space.
    """
    import open_clip

    try:
        loaded: Any = open_clip.create_model_from_pretrained(name, pretrained=weights, device="cpu")
    except Exception as error:  # open_clip raises many kinds for a wrong name, file or shape
        raise UserError(f"{reference}: open_clip cannot load it: {' '.join(str(error).split())[:400]}") from None
    model = loaded[0]
    model.eval()
    _check_image_tower(reference, model.visual)
    _check_tokenizer(reference, open_clip.get_model_config(name) or {})
    return OpenClipTeacher(reference, model, _text_of(reference, model, open_clip), device)


def _check_image_tower(reference: str, visual: nn.Module) -> None:
    native = isinstance(visual, VisionTransformer) and visual.pool_type == "tok" and visual.attn_pool is None
    timm = isinstance(visual, TimmModel) and visual.trunk.global_pool == "token" and not len(visual.head)
    if not (native or timm):
        raise UserError(
            f"{reference}: its image tower ({type(visual).__name__}) does not pool by its class token, so its rows "
            "have no exact place in the joint space. Use a CLS-pooled model (CLIP ViT, EVA-CLIP)."
        )


def _check_tokenizer(reference: str, config: dict[str, Any]) -> None:
    given = [key for key in ("hf_tokenizer_name", "tokenizer_kwargs") if config.get("text_cfg", {}).get(key)]
    if given:
        raise UserError(f"{reference}: its texts are not read by CLIP's own tokenizer ({', '.join(given)} is set)")


def _text_of(reference: str, model: Any, open_clip: Any) -> tuple[ClipText, TextTransformer]:
    """The text tower alone and its spec; a native CLIP keeps its parts at the top level."""
    state = open_clip.model.convert_to_custom_text_state_dict(dict(model.state_dict()))
    weights = {key.removeprefix("text."): value for key, value in state.items() if key.startswith("text.")}
    tower = getattr(model, "text", None)  # CustomTextCLIP has one, CLIP does not
    if tower is not None and not isinstance(tower, TextTransformer):
        raise UserError(f"{reference}: text towers of kind {type(tower).__name__} are not supported")
    blocks: Any = (model.transformer if tower is None else tower.transformer).resblocks
    width = weights["token_embedding.weight"].shape[1]
    quick = isinstance(blocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    spec = ClipText(
        joint=weights["text_projection"].shape[1],
        width=width,
        depth=len(blocks),
        heads=blocks[0].attn.num_heads,
        mlp_ratio=blocks[0].mlp.c_fc.out_features / width,
        context=weights["positional_embedding"].shape[0],
        vocabulary=weights["token_embedding.weight"].shape[0],
        activation="quick_gelu" if quick else "gelu",
    )
    own = spec.build(frozenset()).tower.eval()
    try:
        own.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{reference}: its text tower is of a kind that is not supported ({error})") from None
    probe = Tokenizer(spec.context)(["a red seven left of a small blue three"])
    with torch.no_grad():  # masks and pooling leave no trace in the weights
        alike = torch.allclose(own(probe), model.encode_text(probe), rtol=1e-3, atol=1e-4)
    if not alike:
        raise UserError(f"{reference}: its text tower masks or pools in a way that is not supported")
    return spec, own
