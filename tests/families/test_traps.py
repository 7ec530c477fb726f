"""docs/reference.md §9 lists what implementations get wrong. Each trap has a test; here is which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TRAPS = {
    1: "beats::test_silence_is_the_float32_floor",
    2: "beats::test_frames_are_snipped_at_the_edges",
    3: "beats::test_the_fourth_filter_is_empty_and_gives_the_floor",
    4: "beats::test_values_are_divided_by_twice_the_deviation",
    5: "beats::test_tokens_run_through_the_bands_first",
    6: "beats::test_buckets_reach_to_800",
    7: "beats::test_gate_without_weights_is_one_and_three_quarters",
    8: "beats::test_layers_add_to_a_multiple_of_their_input",
    9: "beats::test_positional_convolution_drops_its_last_output beats::test_weight_norm_is_per_tap",
    10: "beats::test_modern_names_and_a_single_table_are_read",
    11: "qformer::test_padding_is_zero_and_not_the_bias",
    12: "qformer::test_speech_comes_first_in_a_frame",
    13: "qformer::test_each_window_hears_its_17_frames_and_the_last_four_are_dropped",
    14: "qformer::test_order_inside_a_window_does_not_matter qformer::test_layer_norms_use_bert_epsilon",
    15: "qformer::test_projection_has_a_bias",
    16: "llm::test_ids_of_all_25_prompts",
    17: "llm::test_prefill_is_one_bos_prefix_audio_and_suffix",
    18: "llm_export::test_adapter_on_the_base_is_the_merged_model",
    19: "llm_export::test_the_wrong_vicuna_is_refused_by_name",
    20: "qformer::test_every_mandatory_key_is_missed llm_export::test_a_missing_lora_key_is_named",
    21: "decode::test_stereo_is_channel_0_and_mix_is_the_mean engine::test_padded_second_is_what_the_model_hears",
    22: "whisper::test_silence_is_minus_one_and_a_half_everywhere",
    23: "beam::test_the_dummy_bos_counts_as_one_token",
    24: "engine::test_batch_of_clips_answers_as_each_alone beats::test_a_clip_in_a_batch_is_heard_as_alone",
    25: "llm_export::test_a_random_extra_row_is_cut llm::test_specials_are_never_chosen",
    26: "engine::test_same_seed_same_words",
    27: "fastconformer_features::test_trap_27_the_checkpoints_own_tables_are_used",
    28: "fastconformer::test_trap_28_the_frame_too_much_is_dropped",
    29: "fastconformer_export::test_trap_29_the_input_is_scaled_only_where_the_configuration_says_so",
    30: "fastconformer_features::test_trap_30_each_wrong_step_is_noticed",
    31: "salm::test_prompt_is_golden salm::test_released_ids",
    32: "salm::test_greedy_whatever_qwen_does_by_default",
    33: "qwen_export::test_without_its_adapter_it_is_the_base_model salm::test_text_alone_is_the_base_models_answer",
    34: "house::test_imports_follow_the_arrows",  # torchaudio is imported nowhere
}
"""Trap -> tests, as file::function. 27 to 33 are the second family's."""


TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_has_its_test(trap: int) -> None:
    for place in TRAPS[trap].split():
        file, name = place.split("::")
        tree = ast.parse(next(TESTS.rglob(f"test_{file}.py")).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, place
