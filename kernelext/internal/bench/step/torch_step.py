"""Train the LeNet-5 of Caffe with PyTorch: first say PyTorch's version, then do as many steps as each line of standard input says. Arguments: batch, learning rate,
threads, memory format ("contiguous" or "channels_last").

A strong peer: data as bytes in memory, gathered by index, and Adam in its fused form, which is the fastest that PyTorch has on a CPU.
The values of the data do not matter to its speed.
"""
import sys

import torch
from torch import nn

batch, rate, threads, layout = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(threads)
torch.manual_seed(1)
n = 55_000
images = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8)
labels = torch.randint(0, 10, (n,))
model = nn.Sequential(
    nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
)
form = getattr(torch, layout + "_format" if layout == "contiguous" else layout)
model = model.to(memory_format=form)
optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
order, at = torch.randperm(n), 0
print(torch.__version__, flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        if at + batch > n:
            order, at = torch.randperm(n), 0
        chosen = order[at:at + batch]
        x = images[chosen].to(torch.float32).mul_(1 / 255).contiguous(memory_format=form)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), labels[chosen]).backward()
        optimizer.step()
        at += batch
    print("done", flush=True)
