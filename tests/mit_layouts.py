"""SegFormer's backbone as the files of other projects hold it, made from timm's."""

import torch


def mmseg_mit(ours):
    """From timm's weights to mmsegmentation's: one matrix for q, k and v; 1x1 convolutions."""
    theirs = {}
    for key, value in ours.items():
        stage, rest = mit_stage(key)
        if rest.startswith("downsample."):
            rest = f"0.{rest.removeprefix('downsample.').replace('proj.', 'projection.')}"
        elif rest.startswith("norm."):
            rest = f"2.{rest.removeprefix('norm.')}"
        elif ".attn.kv." in rest:
            continue
        else:
            rest = f"1.{rest.removeprefix('blocks.')}"
            if ".attn.q." in rest:
                rest = rest.replace(".attn.q.", ".attn.attn.in_proj_")
                value = torch.cat([value, ours[key.replace(".attn.q.", ".attn.kv.")]])
            rest = rest.replace(".attn.proj.", ".attn.attn.out_proj.")
            for layer, index in (("fc1", 0), ("dwconv", 1), ("fc2", 4)):
                if f".mlp.{layer}.weight" in rest and layer != "dwconv":
                    value = value[..., None, None]
                rest = rest.replace(f".mlp.{layer}.", f".ffn.layers.{index}.")
        theirs[f"layers.{stage}.{rest}"] = value
    return theirs


def original_mit(ours):
    """The same in the layout of SegFormer's authors: the same tensors under other names."""
    names = {"downsample": "patch_embed", "blocks": "block", "norm": "norm"}
    theirs = {}
    for key, value in ours.items():
        stage, rest = mit_stage(key)
        part, _, rest = rest.partition(".")
        theirs[f"{names[part]}{stage + 1}.{rest.replace('dwconv', 'dwconv.dwconv')}"] = value
    return theirs


def hugging_face_mit(ours):
    """The same in Hugging Face's layout, with q, k and v apart."""
    parts = {"downsample": "patch_embeddings", "blocks": "block", "norm": "layer_norm"}
    theirs = {}
    for key, value in ours.items():
        stage, rest = mit_stage(key)
        part, _, rest = rest.partition(".")
        place = f"encoder.{parts[part]}.{stage}."
        if part == "downsample":
            rest = rest.replace("norm", "layer_norm")
        for old, new in (
            ("attn.norm", "attention.self.layer_norm"),
            ("attn.q", "attention.self.query"),
            ("attn.sr", "attention.self.sr"),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc", "mlp.dense"),
            ("mlp.dwconv", "mlp.dwconv.dwconv"),
            (".norm1", ".layer_norm_1"),
            (".norm2", ".layer_norm_2"),
        ):
            rest = rest.replace(old, new)
        if "attn.kv" in rest:
            for name, half in zip(("key", "value"), value.chunk(2), strict=True):
                theirs[place + rest.replace("attn.kv", f"attention.self.{name}")] = half
        else:
            theirs[place + rest] = value
    return theirs


def mit_stage(key):
    """Stage of a timm key, and the rest with the first embedding where the others are."""
    if key.startswith("patch_embed."):
        return 0, key.replace("patch_embed", "downsample")
    stage, _, rest = key.removeprefix("stages_").partition(".")
    return int(stage), rest
