"""Recognition of weights that other libraries saved, by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FORMATS = (
    (
        r"(^|\.)(text_projection|logit_scale|visual\.(proj|class_embedding|trunk\..*))$",
        "a CLIP model, whose image tower answers with an embedding to compare with texts, not with classes; "
        "export it with --clip NAME, such as --clip ViT-B-16, or train a classifier on it",
    ),
    (
        r"(^|\.)dinov2(_with_registers)?\.(embeddings|encoder)\.",
        "a DINOv2 classifier of Hugging Face's transformers ({name}, …). It reads the class token together "
        "with the mean of the patches, and timm's classifier the class token alone, so no renaming makes one "
        "of the other; train a classifier on timm's model of the same size, such as vit_base_patch14_dinov2",
    ),
    (
        r"(^|\.)encoder\.layer\.\d+\.layer_scale1\.lambda1$",
        "a DINOv2 model of Hugging Face's transformers ({name}, …) without a classifier, so it predicts "
        "nothing; train a classifier on timm's model of the same size, such as vit_base_patch14_dinov2",
    ),
    (
        r"(^|\.)(encoder\.layers?|layers)\.\d+\.(attention\.attention\.query|layernorm_before)\.|"
        r"(^|\.)embeddings\.patch_embeddings\.",
        "a transformer with the names of Hugging Face's transformers ({name}, …), of which only those of "
        "ViTForImageClassification and DeiTForImageClassificationWithTeacher can be mapped to timm's; save "
        "it with timm's names, or train timm's model of the same size",
    ),
    (
        r"(^|\.)conv_proj\.|(^|\.)encoder\.layers\.encoder_layer_\d+\.",
        "a transformer with the names of torchvision ({name}, …), and timm names its tensors differently; "
        "save it with timm's names, or train timm's model of the same size",
    ),
    (
        r"(^|\.)decoder_(embed|pos_embed|blocks)",
        "a masked autoencoder from its pre-training ({name}, …), which has no classifier; fine-tune it first",
    ),
    (r"(^|\.)lora_[AB]\.", "adapters of LoRA ({name}, …); merge them into the weights of the model first"),
)


def name_foreign_format(names: Sequence[str]) -> str | None:
    """Return the library and kind of model that named these tensors, and advice; None if it is unknown."""
    for pattern, text in _FORMATS:
        if name := next((name for name in names if re.search(pattern, name)), None):
            return text.format(name=name)
    return None
