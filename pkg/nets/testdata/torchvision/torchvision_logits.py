"""What torchvision's networks compute, for TestAgainstTorchvision.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python torchvision_logits.py

writes logits.json beside this script: the first 50 logits of each network in inference, for weights and an image that come from a formula, which the test has too, so that no
weights need be stored.
"""

import json
import pathlib

import numpy as np
import torch
import torchvision

torch.set_num_threads(1)


def numbers(seed, shape):
    """From -1 to 1, the same in every language."""
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    return (((i * 48271 + seed * 7919) % 65521) / 32760.5 - 1).reshape(shape)


def value(name, shape):
    """A parameter or statistic, by its name: of a size at which activations stay of theirs."""
    x = numbers(sum(name.encode()), shape)
    if name.endswith("running_var"):
        return 1 + 0.3 * x
    if name in ("class_token", "encoder.pos_embedding"):
        return 0.5 * x
    if len(shape) > 1:
        return x * np.sqrt(6 / np.prod(shape[1:]))
    if name.endswith("weight"):
        return 1 + 0.2 * x
    return 0.1 * x


logits = {}
image = torch.from_numpy(numbers(1, (1, 224, 224, 3)).astype(np.float32)).permute(0, 3, 1, 2)
for name, build in {
    "ResNet-18": torchvision.models.resnet18,
    "ResNet-34": torchvision.models.resnet34,
    "ResNet-50": torchvision.models.resnet50,
    "MobileNetV2": torchvision.models.mobilenet_v2,
    "ViT-B/16": torchvision.models.vit_b_16,
}.items():
    net = build(weights=None).eval()
    state = net.state_dict()
    for key, old in state.items():
        if not key.endswith("num_batches_tracked"):
            state[key] = torch.from_numpy(value(key, tuple(old.shape)).astype(np.float32))
    net.load_state_dict(state)
    with torch.no_grad():
        y = net.double()(image.double())[0]
    print(name, float(y.abs().max()), float(y.std()))
    logits[name] = [float(f"{x:.9g}") for x in y[:50]]
(pathlib.Path(__file__).parent / "logits.json").write_text(json.dumps(logits, indent=0) + "\n")
