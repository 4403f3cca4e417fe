"""Which tests a row rests on: those that compare its parts with a slow formula or another library.

A row is made of parts, so that what verifies it follows from the kinds of its parts; a few rows are checked whole too.
The names are those of functions in `tests/`; `pytest -k NAME` runs one. A test fails where a name leads nowhere, or a
part has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from onestage.objective.declare import Ema, Method, Term
from onestage.targets import Encoded

PARTS: dict[str, str] = {
    "hide random": "test_random_hides_every_cell_alike",
    "hide block": "test_block_wise_agrees_with_the_slow_formula",
    "hide block_reversed": "test_block_reversed_is_flat_where_block_is_not",
    "hide sampled": "test_shares_are_those_of_the_range",
    "hide units": "test_every_unit_is_as_likely",
    "hide tube": "test_a_tube_hides_the_same_cells_in_every_frame",
    "hide words": "test_a_share_of_the_words_is_hidden",
    "hide attentive": "test_cells_stay_as_often_as_drawing_one_after_another_keeps_them",
    "mode drop": "test_dropping_equals_masking_the_same_tokens_in_attention",
    "mode replace": "test_hidden_pixels_have_no_influence",
    "mix": "test_each_sample_gets_its_own_rows_back",
    "target pixels": "test_pixels_equal_the_slow_formula",
    "target hog": "test_histograms_equal_the_slow_formula",
    "target encoded": "test_encoded_picks_the_wanted_rows_wherever_they_stand",
    "target words": "test_pairs_are_told_apart_by_loops",
    "target table": "test_table_shares_its_trained_rows_and_takes_labels_as_identity",
    "match nearest": "test_the_nearest_row_is_that_of_the_greatest_cosine",
    "ema": "test_ema_targets_follow_the_student_and_get_no_gradient",
    "projector blocks": "test_blocks_equal_attention_and_batch_norm_written_out",
    "projector mlp": "test_heads_equal_layers_written_out",
    "projector codes": "test_codes_are_cosines",
    "projector aggregation": "test_patch_aggregation_is_two_more_blocks_of_the_encoder",
    "projector regressor": "test_the_regressor_equals_loops",
    "projector second": "test_the_row_is_timms_token_distillation",
    "predictor latent": "test_the_decoder_of_latents_equals_loops",
    "predictor drawn": "test_pictures_are_compared_as_the_teacher_sees_them",
    "predictor same": "test_the_same_rows_are_the_guess",
    "predictor linear": "test_linear_maps_each_wanted_row",
    "predictor mlp": "test_mlp_is_linear_layers_with_gelu_between",
    "predictor decoder": "test_decoder_equals_timm_blocks_over_the_restored_sequence",
    "predictor relative": "test_positions_are_those_of_brute_force_geometry",
    "predictor aligned": "test_aligned_is_a_mix_of_blocks",
    "predictor block": "test_block_is_umts_head",
    "predictor prompting": "test_prompting_updates_hidden_rows_alone",
    "predictor quantised": "test_quantised_is_bottleneck_codes_and_decoder",
    "likelihood gaussian": "test_gaussian_value_and_gradients_equal_the_slow_formula",
    "likelihood boltzmann batch": "test_batch_value_and_gradients_equal_the_slow_formula",
    "likelihood boltzmann table": "test_table_value_and_gradients_equal_the_slow_formula",
    "likelihood boltzmann tokens": "test_tokens_are_told_apart_inside_their_own_image",
    "likelihood boltzmann queue": "test_a_queue_is_infonce_against_earlier_targets",
    "likelihood bernoulli": "test_bernoulli_equals_loops_and_timm",
    "likelihood sigmoid": "test_sigmoid_value_and_gradients_equal_the_slow_formula",
    "likelihood centred": "test_centred_equals_loops_and_its_centre_follows",
    "likelihood prototypes": "test_prototypes_equal_loops",
    "likelihood cross_correlation": "test_cross_correlation_equals_loops",
    "likelihood categorical": "test_categorical_is_the_cross_entropy_of_loops",
    "likelihood scores": "test_scores_equal_loops",
    "regulariser unigrad": "test_unigrad_is_the_quadratic_form_of_the_correlation",
}
"""The oracle of each kind of part."""

ROWS: dict[str, tuple[str, ...]] = {
    "byol": ("test_two_directions_of_byol_equal_its_formula", "test_byol_is_lightlys"),
    "ibot": (
        "test_ibot_explains_hidden_patches_of_the_same_view_and_the_class_of_the_other",
        "test_ibots_patches_are_lightlys_where_each_image_hides_as_many",
    ),
    "densecl": ("test_densecl_equals_its_formula", "test_densecl_matches_as_lightly_does"),
    "moco_v2": ("test_moco_is_lightlys_and_so_is_its_queue",),
    "barlow_twins": ("test_barlow_twins_is_lightlys",),
    "msn": (
        "test_msn_is_lightlys",
        "test_msn_is_the_mean_over_its_anchors_and_one_entropy",
    ),
    "dino": ("test_dino_is_the_mean_over_pairs_and_has_one_centre", "test_dino_is_lightlys_and_so_is_its_centre"),
    "moco_v3": ("test_two_directions_of_moco_v3_equal_its_formula",),
    "beit": ("test_a_run_of_vqkd_numbers_cells_by_its_code_book",),
    "peco_vq": (
        "test_pictures_are_compared_as_the_teacher_sees_them",
        "test_a_run_of_peco_vq_numbers_cells_by_its_code_book",
    ),
    "beit2": ("test_patch_aggregation_is_two_more_blocks_of_the_encoder",),
    "cae": ("test_latents_are_those_of_the_hidden_cells_alone",),
    "beit3": ("test_a_multiway_encoder_equals_loops", "test_pairs_are_told_apart_by_loops"),
    "clip": ("test_plain_clip_equals_open_clip",),
    "data2vec": (
        "test_the_mean_of_blocks_equals_data2vecs_formula",
        "test_an_encoder_gives_the_outputs_of_its_last_blocks",
    ),
    "eva02": ("test_a_stem_with_a_share_of_its_gradient",),
    "deit_distilled": ("test_the_row_is_timms_token_distillation", "test_both_heads_are_averaged"),
    "fd": ("test_fd_explains_whitened_rows_with_the_class_token",),
    "mae": ("test_decoder_of_mae_has_its_parameters",),
    "lit": ("test_lit_equals_loops",),
    "maskalign": ("test_maskalign_is_twice_smooth_l1_of_whitened_blocks_a_fifth_each",),
    "milan": ("test_rows_on_the_sphere_cost_two_minus_two_cosines",),
    "mvp": ("test_mvp_weighs_the_class_token_and_each_patch_alike",),
    "simmim": ("test_a_hidden_cell_is_64_mask_tokens",),
    "video_mae": ("test_video_mae_is_transformers",),
    "umt": ("test_rows_on_the_sphere_cost_two_minus_two_cosines",),
    "uta": (
        "test_uta_with_the_student_set_to_the_teacher_and_nothing_hidden_has_loss_minus_one",
        "test_uta_student_flops_follow_the_kept_tokens",
    ),
    "uta_text": (
        "test_uta_of_texts_equals_loops",
        "test_dropping_words_equals_a_text_of_the_others_at_their_places",
    ),
    "vqkd": ("test_codes_move_as_the_slow_formula_says", "test_dead_codes_are_revived"),
}
"""Tests of whole rows."""


def parts(method: Method) -> tuple[str, ...]:
    """The kinds of parts that a row is made of, in the words of `PARTS`, each once."""
    return tuple(dict.fromkeys(kind for term in method.terms.values() for kind in _kinds(method, term)))


def verified_by(method: Method) -> tuple[str, ...]:
    """The names of the oracle tests of a row, its own first."""
    own = [name for row in method.name.split("+") for name in ROWS.get(row, ())]
    return tuple(dict.fromkeys([*own, *(PARTS[kind] for kind in parts(method) if kind in PARTS)]))


def _kinds(method: Method, term: Term) -> Iterator[str]:
    asked = method.input_of(term)
    for part in asked.parts.values():
        if part.hide is not None:
            yield from (f"hide {part.hide.kind}", f"mode {part.mode}")
    if asked.mix is not None:
        yield from (f"hide {asked.mix.kind}", "mix")
    yield f"target {term.target.kind}"
    if isinstance(term.target, Encoded) and isinstance(method.encoders[term.target.encoder], Ema):
        yield "ema"
    if term.match == "nearest":
        yield "match nearest"
    if term.projector is not None:
        yield f"projector {method.projectors[term.projector].kind}"
    yield f"predictor {term.predictor.kind}"
    likelihood = term.likelihood
    over = f" {likelihood.over}" if likelihood.kind == "boltzmann" else ""
    yield f"likelihood {likelihood.kind}{over}"
    if term.regulariser is not None:
        yield f"regulariser {term.regulariser.kind}"
