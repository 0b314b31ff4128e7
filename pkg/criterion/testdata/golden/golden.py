"""Reference numbers for the tests of pkg/criterion, pkg/signal and pkg/reconstruct, from the original implementations where there are any.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python golden.py

writes the JSON files beside this script; a second run writes the same bytes. Inputs are rounded to float32 and stored, so that readers need no random
numbers. Layouts are those of Espalier: dense weights [in, out], convolutions [height, width, in, out], the transposes of PyTorch's.
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.utils.prune as tprune
import torch_pruning as tp

torch.set_num_threads(1)
here = pathlib.Path(__file__).parent
rng = np.random.default_rng(20261124)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def array(a):
    a = np.asarray(a)
    flat = a.reshape(-1)
    if a.dtype == bool:
        data = [int(x) for x in flat]
    elif np.issubdtype(a.dtype, np.integer):
        data = [int(x) for x in flat]
    else:
        data = [float(f"{x:.9g}") for x in flat.astype(np.float64)]
    return {"shape": list(a.shape), "data": data}


def write(name, source, inputs, expected):
    text = json.dumps({"source": source, "inputs": inputs, "expected": expected}, separators=(",", ":"))
    (here / f"{name}.json").write_text(text + "\n")


def espalier(w):  # PyTorch's layout to ours
    w = w.detach().numpy()
    return w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T


# --- torch.nn.utils.prune: masks
def masks():
    linears = [torch.nn.Linear(6, 5), torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)]
    for layer in linears:
        layer.weight.data = torch.tensor(normal(*layer.weight.shape))
    expected = {}
    for amount in (0.3, 0.5, 0.7):  # at 0.8 a layer dies, which Espalier does not let happen
        copies = [torch.nn.Linear(l.in_features, l.out_features) for l in linears]
        for c, l in zip(copies, linears):
            c.weight.data = l.weight.data.clone()
        tprune.global_unstructured([(c, "weight") for c in copies], pruning_method=tprune.L1Unstructured, amount=amount)
        expected[f"global {amount}"] = [array(espalier(c.weight_mask) != 0) for c in copies]
        one = torch.nn.Linear(6, 5)
        one.weight.data = linears[0].weight.data.clone()
        tprune.l1_unstructured(one, "weight", amount=amount)
        expected[f"layer {amount}"] = array(espalier(one.weight_mask) != 0)
        for n in (1, 2):
            one = torch.nn.Linear(6, 5)
            one.weight.data = linears[0].weight.data.clone()
            tprune.ln_structured(one, "weight", amount=2, n=n, dim=0)
            expected[f"filters L{n}"] = array(espalier(one.weight_mask) != 0)
    write("masks", f"torch.nn.utils.prune of PyTorch {torch.__version__}", {"weights": [array(espalier(l.weight)) for l in linears]}, expected)


# --- Torch-Pruning: importances of the filters of one layer
def importances():
    inputs, expected = {}, {}
    for kind, layer, x in (("conv", torch.nn.Conv2d(4, 8, 3, bias=False), torch.zeros(1, 4, 8, 8)), ("linear", torch.nn.Linear(10, 6, bias=False), torch.zeros(1, 10))):
        layer.weight.data = torch.tensor(normal(*layer.weight.shape))
        grad = torch.tensor(normal(*layer.weight.shape))
        layer.weight.grad = grad.clone()
        graph = tp.DependencyGraph().build_dependency(torch.nn.Sequential(layer), example_inputs=x)
        root = graph.get_pruner_of_module(layer).prune_out_channels
        group = graph.get_pruning_group(layer, root, idxs=list(range(layer.weight.shape[0])))
        plain = dict(group_reduction="mean", normalizer=None)
        imps = {
            "L1": tp.importance.GroupMagnitudeImportance(p=1, **plain),
            "L2 squared": tp.importance.GroupMagnitudeImportance(p=2, **plain),
            "FPGM": tp.importance.FPGMImportance(p=1, **plain),  # on absolute weights, see the test
            "taylor": tp.importance.GroupTaylorImportance(multivariable=True, **plain),
            "taylor L1": tp.importance.GroupTaylorImportance(multivariable=False, **plain),
        }
        hessian = tp.importance.GroupHessianImportance(**plain)
        hessian._accu_grad = {layer.weight: grad.clone().pow(2)}
        hessian._counter = {layer.weight: 1}
        imps["hessian"] = hessian
        inputs[kind] = {"weight": array(espalier(layer.weight)), "grad": array(espalier(grad))}
        expected[kind] = {name: array(imp(group).detach().numpy()) for name, imp in imps.items()}
    write("importances", "Torch-Pruning 1.6.1, groups of one layer, group_reduction mean, no normalizer", inputs, expected)


# --- SNIP, GraSP, SynFlow, Fisher by automatic differentiation
def initial():
    torch.set_default_dtype(torch.float64)
    shapes = [(6, 5), (5, 4)]  # [in, out]
    ws, bs = [normal(*s) for s in shapes], [normal(s[1]) for s in shapes]
    x, y = normal(8, 6), rng.integers(0, 4, 8)
    w = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in ws]
    b = [torch.tensor(a.astype(np.float64)) for a in bs]

    def forward(w, b, x):
        return torch.relu(x @ w[0] + b[0]) @ w[1] + b[1]

    def loss(t=1.0, rows=slice(None)):
        return torch.nn.functional.cross_entropy(forward(w, b, torch.tensor(x[rows].astype(np.float64))) / t, torch.tensor(y[rows]))

    expected = {"gradient": [array(g.numpy()) for g in torch.autograd.grad(loss(), w)]}
    for t in (1.0, 200.0):
        grads = torch.autograd.grad(loss(t), w, create_graph=True)
        stopped = [g.detach() for g in grads]
        product = sum((g * s).sum() for g, s in zip(grads, stopped))
        expected[f"Hg at {t:g}"] = [array(h.numpy()) for h in torch.autograd.grad(product, w)]
    squares = [np.zeros_like(a, dtype=np.float64) for a in ws]
    each = []
    for i in range(8):
        grads = [g.numpy() for g in torch.autograd.grad(loss(rows=slice(i, i + 1)), w)]
        each.append(grads)
        for s, g in zip(squares, grads):
            s += g**2 / 8
    expected["fisher"] = [array(s) for s in squares]
    inverses = []  # of lambda + the Fisher matrix in blocks of 7, by inverting it
    for layer in range(2):
        flat = np.stack([g[layer].reshape(-1) for g in each])
        diagonal = []
        for start in range(0, flat.shape[1], 7):
            block = flat[:, start : start + 7]
            diagonal.extend(np.diag(np.linalg.inv(0.01 * np.eye(block.shape[1]) + block.T @ block / 8)))
        inverses.append(array(np.array(diagonal)))
    expected["inverse Fisher"] = inverses
    aw = [a.detach().abs().requires_grad_() for a in w]
    r = forward(aw, [v.abs() for v in b], torch.ones(1, 6)).sum()
    expected["flow"] = [array(g.numpy()) for g in torch.autograd.grad(r, aw)]
    torch.set_default_dtype(torch.float32)
    write("initial", f"automatic differentiation of PyTorch {torch.__version__} in float64; linear algebra of NumPy {np.__version__}",
          {"weights": [array(a) for a in ws], "biases": [array(a) for a in bs], "x": array(x), "labels": array(y)}, expected)


# --- Activations
def activations():
    torch.set_default_dtype(torch.float64)
    x = normal(4, 5, 5, 2)
    w = normal(1, 1, 2, 3)  # [1, 1, in, out]
    a = np.maximum(np.einsum("nhwi,io->nhwo", x.astype(np.float64), w[0, 0].astype(np.float64)), 0)
    a32 = a.astype(np.float32)
    ranks = [[int(torch.linalg.matrix_rank(torch.tensor(a32[n, :, :, c]))) for c in range(3)] for n in range(4)]
    expected = {
        "zeros": array((a == 0).mean(axis=(0, 1, 2))),
        "norm": array(np.sqrt((a**2).sum(axis=(1, 2))).mean(axis=0)),
        "rank": array(np.array(ranks, dtype=np.float64).mean(axis=0)),
        "input norm": array(np.sqrt((x.astype(np.float64) ** 2).sum(axis=(0, 1, 2)))),
    }
    torch.set_default_dtype(torch.float32)
    write("activations", f"NumPy {np.__version__}; ranks by torch.linalg.matrix_rank of PyTorch {torch.__version__}", {"x": array(x), "weight": array(w)}, expected)


# --- Wanda and SparseGPT on one layer of 64 outputs and 128 inputs
def layer():
    w = normal(64, 128)
    x = (normal(256, 32) @ normal(32, 128) + 0.5 * normal(256, 128)).astype(np.float32)  # [samples, in], correlated
    norms = np.sqrt((x.astype(np.float64) ** 2).sum(axis=0))
    score = np.abs(w.astype(np.float64)) * norms  # Wanda, equation 1
    half = np.ones_like(w, dtype=bool)
    for row in range(64):
        half[row, np.argsort(score[row], kind="stable")[:64]] = False
    two = np.ones_like(w, dtype=bool)
    for i in range(0, 128, 4):
        for row in range(64):
            two[row, i + np.argsort(score[row, i : i + 4], kind="stable")[:2]] = False

    def sweep(block, n=0, m=0):
        """SparseGPT (Frantar & Alistarh 2023, algorithm 1) in float64, half of each block removed, exactly."""
        h = 2 / 256 * x.astype(np.float64).T @ x.astype(np.float64)
        h += 0.01 * np.mean(np.diag(h)) * np.eye(128)
        upper = np.linalg.cholesky(np.linalg.inv(h)).T
        v, mask = w.astype(np.float64), np.ones_like(w, dtype=bool)
        for i in range(0, 128, block):
            j = min(i + block, 128)
            errors = np.zeros((64, j - i))
            if m == 0:
                saliency = v[:, i:j] ** 2 / np.diag(upper)[i:j] ** 2
                order = np.argsort(saliency, axis=None, kind="stable")
                part = np.ones(saliency.size, dtype=bool)
                part[order[: saliency.size // 2]] = False
                mask[:, i:j] = part.reshape(saliency.shape)
            for k in range(i, j):
                if m and k % m == 0:
                    saliency = v[:, k : k + m] ** 2 / np.diag(upper)[k : k + m] ** 2
                    for row in range(64):
                        mask[row, k + np.argsort(saliency[row], kind="stable")[: m - n]] = False
                q = np.where(mask[:, k], v[:, k], 0)
                errors[:, k - i] = (v[:, k] - q) / upper[k, k]
                v[:, k:j] -= np.outer(errors[:, k - i], upper[k, k:j])
                v[:, k] = q
            v[:, j:] -= errors @ upper[i:j, j:]
        return {"mask": array(mask.T), "weights": array(v.T)}

    write("layer", f"the formulas of Wanda and SparseGPT in NumPy {np.__version__}, float64", {"weights": array(w.T), "x": array(x)}, {
        "wanda": array(score.T), "wanda half": array(half.T), "wanda 2:4": array(two.T),
        "sparsegpt 128": sweep(128), "sparsegpt 32": sweep(32), "sparsegpt 2:4": sweep(128, 2, 4)})


masks()
importances()
initial()
activations()
layer()
