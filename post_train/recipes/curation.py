"""The curation of the Diorama's wild split: thresholds, each with what it was set by."""

from __future__ import annotations

from post_train.data.curation import CurationConfig, Emphasis


def diorama_curation() -> CurationConfig:
    """Thresholds for clips of 64 pixels, set by hand on 240 wild clips (seeds 0 to 239) that no run trains on."""
    return CurationConfig(
        # A caption asks for about ten things; one that the judge does not see is one too many.
        min_alignment=0.95,
        complete_captions=True,
        # Shaken clips begin at 0.023; 95 % of the steady ones lie below, and falling snow makes most of the rest.
        max_shake=0.0225,
        # The slowest clips of the world, a lone swaying object, move at 0.003 sides a frame.
        min_speed=0.002,
        max_speed=0.2,
        max_still_share=0.3,
        # The darkest scene, a night, has 43; nothing is brighter than 204.
        min_brightness=25.0,
        max_brightness=225.0,
        min_sharpness=30.0,
        # Compressed clips begin at 1.64; 98 % of the others lie below 1.4.
        max_blockiness=1.4,
        # A reader's boxes err by about a hundredth of the side.
        min_edge_margin=-0.015,
        max_weight=3.0,
        # What two objects ask for the base gets wholly right in 58 % of films (n 50), what one asks for in 92 % (n 90;
        # the validating judge and its prompts), and captions ask for two in 35 %. So they are drawn as often as they
        # are got wrong: 0.35 * 0.42 against 0.65 * 0.08.
        emphasis=Emphasis(attribute="count:2", share=0.74),
    )
