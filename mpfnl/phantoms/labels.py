"""Numbers and names of the label map; TotalSegmentator's numbers for its structures."""

from __future__ import annotations

LABELS: dict[int, str] = {
    1: "spleen",
    2: "kidney_right",
    3: "kidney_left",
    4: "gallbladder",
    5: "liver",
    6: "stomach",
    7: "pancreas",
    8: "adrenal_gland_right",
    9: "adrenal_gland_left",
    11: "lung_lower_lobe_left",
    14: "lung_lower_lobe_right",
    15: "esophagus",
    18: "small_bowel",
    19: "duodenum",
    20: "colon",
    28: "vertebrae_L4",
    29: "vertebrae_L3",
    30: "vertebrae_L2",
    31: "vertebrae_L1",
    32: "vertebrae_T12",
    33: "vertebrae_T11",
    34: "vertebrae_T10",
    35: "vertebrae_T9",
    51: "heart",
    52: "aorta",
    63: "inferior_vena_cava",
    64: "portal_vein_and_splenic_vein",
    79: "spinal_cord",
    86: "autochthon_left",
    87: "autochthon_right",
    88: "iliopsoas_left",
    89: "iliopsoas_right",
    **{91 + rib: f"rib_left_{rib}" for rib in range(6, 13)},
    **{103 + rib: f"rib_right_{rib}" for rib in range(6, 13)},
    117: "costal_cartilages",
    # Structures that TotalSegmentator's "total" task does not have.
    201: "superior_mesenteric_artery",
    202: "coeliac_artery",
    203: "liver_lesion",
    204: "kidney_sinus",
}
"""Label value to structure name; 0 is everything else (fat, wall muscle, air)."""

NUMBERS: dict[str, int] = {name: number for number, name in LABELS.items()}
"""Structure name to label value."""
