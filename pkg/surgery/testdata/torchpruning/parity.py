"""What Torch-Pruning removes from torchvision's ResNet-18 and MobileNetV2 at 50 % by group L2 importance, for the parity test of pkg/surgery.

    python3 -m venv venv && venv/bin/pip install --require-hashes -r requirements.txt && venv/bin/python parity.py

writes the JSON files beside this script; a second run writes the same bytes. Weights are made of the names and positions that they have in Espalier, by integer
arithmetic that the test repeats, so that none are stored. Paths and layouts are those of Espalier: dense weights [in, out], convolutions [height, width, in, out].
"""

import json
import math
import pathlib
import re

import numpy as np
import torch
import torch_pruning as tp
import torchvision

torch.set_num_threads(1)
here = pathlib.Path(__file__).parent
MASK = (1 << 64) - 1


def fnv1a(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def uniform(name, n):
    """n numbers in [0, 1) with 24 bits: SplitMix64, started at the hash of a name."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 24)


def value(path, shape):
    """Kernels get a factor for each output, so that importances differ by more than rounding."""
    n = math.prod(shape)
    if len(shape) == 1:
        return (0.5 + uniform(path, n)).astype(np.float32)
    bound = math.sqrt(3 / (n // shape[-1]))
    factor = 0.5 + uniform(path + "#factor", shape[-1])
    return ((2 * uniform(path, n) - 1).reshape(shape) * (bound * factor)).astype(np.float32)


def resnet_scope(name):
    name = re.sub(r"layer(\d)\.(\d)\.", r"layer\1_\2/", name)
    name = re.sub(r"bn(\d)", r"conv\1", name)
    return "/" + re.sub(r"downsample\.[01]", "downsample", name).replace("fc", "output")


def mobilenet_scope(name):
    if name.startswith("classifier"):
        return "/output"
    at = name.split(".")
    if at[1] in ("0", "18"):
        return "/conv1" if at[1] == "0" else "/conv2"
    part = int(at[3])
    names = ["depthwise", "project", "project"] if at[1] == "1" else ["expand", "depthwise", "project", "project"]
    return f"/block{int(at[1]) - 1}/{names[part]}"


def path_of(scope, module):
    """The path of a module's weight."""
    if isinstance(module, torch.nn.Conv2d):
        return scope + "/conv/weights"
    if isinstance(module, torch.nn.Linear):
        return scope + "/dense/weights"
    return scope + "/batch_normalization/scale"


def parity(name, model, scope_of, ignored):
    paths = {}
    for module_name, module in model.named_modules():
        if not isinstance(module, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.BatchNorm2d)):
            continue
        paths[module] = path = path_of(scope_of(module_name), module)
        w = module.weight.data
        if w.ndim == 4:  # [out, in, h, w] of torch's
            o, i, h, k = w.shape
            new = value(path, (h, k, i, o)).transpose(3, 2, 0, 1)
        elif w.ndim == 2:
            new = value(path, tuple(w.shape[::-1])).T
        else:
            new = value(path, tuple(w.shape))
        module.weight.data = torch.tensor(np.ascontiguousarray(new))
    assert len(set(paths.values())) == len(paths)
    model.eval()
    pruner = tp.pruner.MagnitudePruner(
        model, torch.zeros(1, 3, 224, 224), importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=ignored(model)
    )
    original = {m: m.weight.shape for m in paths}
    kinds = {}
    for kind in ("conv_out", "conv_in", "depthwise_conv_out", "linear_in", "linear_out", "batchnorm_out"):
        for suffix in ("channels",):
            f = getattr(tp, f"prune_{kind}_{suffix}")
            kinds[f] = kind
    groups, gaps = [], []
    for group in pruner.DG.get_all_groups(ignored_layers=ignored(model), root_module_types=pruner.root_module_types):
        imp = pruner.importance(group)
        ordered = torch.sort(imp).values
        half = len(imp) // 2
        gaps.append(float((ordered[half] - ordered[half - 1]) / ordered[half]))
    for group in pruner.step(interactive=True):
        dep, idxs = group[0]
        members = [[paths[d.target.module], kinds[d.handler]] for d, _ in group if d.target.module in paths]
        groups.append({"root": paths[dep.target.module], "units": int(original[dep.target.module][0]), "removed": sorted(int(i) for i in idxs), "members": members})
        group.prune()
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    _, params = tp.utils.count_ops_and_params(model, torch.zeros(1, 3, 224, 224))
    result = {
        "source": f"torch {torch.__version__.split('+')[0]}, torchvision {torchvision.__version__.split('+')[0]}, torch-pruning 1.6.1: MagnitudePruner, GroupMagnitudeImportance(p=2), 0.5",
        "smallest_gap": float(f"{min(gaps):.3g}"),
        "params": int(params),
        "groups": groups,
    }
    text = json.dumps(result, separators=(",", ":")).replace('{"root"', '\n{"root"')
    (here / f"{name}.json").write_text(text + "\n")
    print(name, len(groups), "groups,", params, "parameters left, smallest gap", min(gaps))


parity("resnet18", torchvision.models.resnet18(weights=None), resnet_scope, lambda m: [m.fc])
parity("mobilenetv2", torchvision.models.mobilenet_v2(weights=None), mobilenet_scope, lambda m: [m.classifier[1]])
