"""A slim backbone by timm's own `create_model`.

python examples/timm_model.py
"""

import tempfile
from pathlib import Path

import timm
import torch

import compress
import compress.timm_models


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "slim.safetensors")
        compress.save(compress.prune(compress.create_backbone("resnet18", weights="bundled"), ratio=0.5), file)

        # timm's argument for a file of weights
        net = timm.create_model("prunecore_resnet18", features_only=True, checkpoint_path=file, out_indices=(1, 2, 3))

        # timm's way to change where pretrained weights lie: here the whole file is checked, and its taps are taken
        overlay = {"file": str(file)}
        checked = timm.create_model(
            "prunecore_resnet18", pretrained=True, features_only=True, pretrained_cfg_overlay=overlay
        )

        # a name for the file, for programs that take nothing else
        compress.timm_models.register_file("bottle_resnet18", file)
        named = timm.create_model("bottle_resnet18", pretrained=True, features_only=True)

    for entry in net.feature_info.get_dicts():
        print("{module}: {num_chs} channels at stride {reduction}".format(**entry))
    config = timm.data.resolve_model_data_config(net)
    print("images:", config["input_size"], "mean", config["mean"])
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        *_, expected = checked.eval()(images)
        for other in (net, named):
            print("the same maps:", torch.equal(other.eval()(images)[-1], expected))


if __name__ == "__main__":
    main()
