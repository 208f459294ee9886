"""Figures that the paper prints (arXiv 2412.01981 v1), to stand beside ours, labelled as theirs."""

from __future__ import annotations

#: Table 1: best-of-N accuracy (%) on MATH-500 at N = 4, 16, 64, by reward model and generator.
TABLE_1: dict[str, dict[str, tuple[float, float, float]]] = {
    method: dict(zip(("Mistral 7B", "Llama 3.1 8B", "Llama 3.1 70B"), by_generator, strict=True))
    for method, by_generator in {
        "EurusRM-7B": ((17.2, 21.0, 20.4), (49.6, 51.6, 51.8), (69.0, 69.6, 72.2)),
        "SkyworkRM-Llama3.1-8B": ((16.0, 19.6, 23.4), (49.0, 50.4, 48.2), (70.4, 72.6, 72.0)),
        "ArmoRM-Llama3-8B": ((16.6, 21.0, 23.2), (47.8, 48.6, 49.4), (70.6, 70.8, 71.0)),
        "Math-Shepherd-7B": ((16.0, 21.0, 20.4), (50.0, 52.4, 52.8), (66.4, 65.8, 65.6)),
        "RLHFlow-8B-Mistral-Data": ((19.4, 25.2, 30.2), (51.8, 52.0, 50.6), (70.8, 71.0, 71.2)),
        "RLHFlow-8B-DS-Data": ((17.2, 23.0, 25.2), (54.4, 54.2, 55.8), (68.6, 70.4, 73.0)),
        "Math-Shepherd (re-implemented)": (
            (17.6, 24.4, 26.8),
            (50.0, 51.4, 52.8),
            (68.6, 69.4, 68.8),
        ),
        "AutoPSV (re-implemented)": ((16.6, 20.6, 22.2), (52.2, 51.4, 52.2), (68.4, 65.4, 62.4)),
        "DPO": ((18.6, 24.4, 28.8), (54.0, 55.4, 57.0), (71.8, 71.2, 72.2)),
        "KTO": ((15.6, 18.4, 18.6), (49.6, 51.8, 50.8), (72.6, 67.0, 67.2)),
        "NCA": ((18.6, 23.8, 28.0), (52.4, 53.4, 55.2), (69.0, 73.0, 71.6)),
        "CE": ((18.8, 24.0, 28.0), (52.6, 54.4, 53.0), (70.6, 67.0, 67.2)),
        "CE, balanced": ((18.0, 23.6, 27.0), (52.6, 54.2, 52.6), (68.6, 66.8, 67.0)),
        "CE, balanced by prompt": ((17.6, 22.6, 26.2), (52.6, 55.2, 54.6), (69.4, 71.2, 72.0)),
    }.items()
}
#: Accuracy of one response of each generator of Table 1 (%).
PASS_AT_1 = {"Mistral 7B": 9.6, "Llama 3.1 8B": 44.6, "Llama 3.1 70B": 63.2}
#: Figure 3: accuracy (%) averaged over the nine columns of Table 1, of the reward
#: model alone and of a vote weighted by it.
FIGURE_3 = {"KTO": (45.7, 50.4), "NCA": (49.4, 51.8), "DPO": (50.4, 51.5), "CE": (48.4, 51.9)}
#: Figure 3, the majority vote without a reward model (about).
FIGURE_3_MAJORITY = 49.1
#: §5: ratios of FLOPs that the paper states, at 2, 4 and 8 responses per instruction.
COMPUTE_RATIOS: dict[str, tuple[float, float, float]] = {
    "Math-Shepherd / CE": (38.8, 38.6, 38.8),
    "Math-Shepherd / DPO": (146.5, 49.9, 21.3),
    "AutoPSV / CE": (4.3, 4.2, 4.3),
    "DPO / CE": (0.3, 0.8, 1.8),
}
