r"""torchvision's ResNet-18, VGG16-BN and MobileNetV2 with random weights as ONNX files, by both of torch's exporters, for the tests of pkg/onnx.

    python3 -m venv venv && venv/bin/pip install --no-deps --require-hashes -r requirements.txt && venv/bin/python models.py [--full DIR]

writes small variants, of the same layers with fewer channels, beside this script; with --full the networks themselves into DIR, for which

    ESPALIER_TORCH_DIR=DIR go test -run Torch\|Surgery ./pkg/onnx

runs the tests. outputs.json, in the same place, says what torch computes for the inputs that signal() makes.
"""

import json
import pathlib
import sys

import onnx
import torch
import torchvision
from torchvision.models import mobilenetv2, resnet, vgg

torch.set_num_threads(2)


def signal(*shape):
    """Numbers between -1 and 1 that every language computes exactly."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    return (((n * 1103515245 + 12345) % 65536).to(torch.float32) / 32768 - 1).reshape(shape)


class SmallResNet(resnet.ResNet):
    """ResNet-18 with an eighth of the channels."""

    def __init__(self):
        super().__init__(resnet.BasicBlock, [2, 2, 2, 2], num_classes=10)
        self.conv1 = torch.nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.fc = torch.nn.Linear(64, 10)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:
            self.inplanes = 8
        return super()._make_layer(block, planes // 8, blocks, stride, dilate)


def small_vgg():
    """VGG16-BN with a sixteenth of the channels."""
    layers = [c if c == "M" else c // 16 for c in vgg.cfgs["D"]]
    m = vgg.VGG(vgg.make_layers(layers, batch_norm=True), num_classes=10)
    m.classifier[0] = torch.nn.Linear(32 * 7 * 7, 32)
    m.classifier[3] = torch.nn.Linear(32, 32)
    m.classifier[6] = torch.nn.Linear(32, 10)
    return m


def small_mobilenet():
    """MobileNetV2 with a quarter of the channels, and an eighth in the last convolution."""
    m = mobilenetv2.MobileNetV2(num_classes=10, width_mult=0.25)
    m.features[-1] = torchvision.ops.Conv2dNormActivation(80, 160, kernel_size=1, activation_layer=torch.nn.ReLU6)
    m.classifier[1] = torch.nn.Linear(160, 10)
    return m


small = {"resnet18": (SmallResNet, 64), "vgg16_bn": (small_vgg, 224), "mobilenet_v2": (small_mobilenet, 64)}
full = {"resnet18": (torchvision.models.resnet18, 224), "vgg16_bn": (torchvision.models.vgg16_bn, 224), "mobilenet_v2": (torchvision.models.mobilenet_v2, 224)}


def without_traces(path):
    """Removes where in whose files each operation was called from."""
    m = onnx.load(path)
    for kept in [m, m.graph, *m.graph.node, *m.graph.value_info, *m.graph.input, *m.graph.output, *m.graph.initializer, *m.functions]:
        del kept.metadata_props[:]
        kept.ClearField("doc_string")
    onnx.save(m, path)


def main():
    networks, where = small, pathlib.Path(__file__).parent
    if len(sys.argv) == 3 and sys.argv[1] == "--full":
        networks, where = full, pathlib.Path(sys.argv[2])
        where.mkdir(parents=True, exist_ok=True)
    outputs = {}
    for name, (make, size) in networks.items():
        torch.manual_seed(0)
        m = make()
        for layer in m.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # as after training: an identity would hide mistakes
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.data.uniform_(0.5, 1.5)
                layer.bias.data.normal_(0, 0.1)
        m.eval()
        x = signal(2, 3, size, size)
        with torch.no_grad():
            outputs[name] = {"input": list(x.shape), "output": [[float(f"{v:.9g}") for v in row] for row in m(x).tolist()]}
        # The old exporter with a free batch and batch normalisation as it is, the new one with a fixed batch and as it does by default.
        torch.onnx.export(m, (x,), where / f"{name}_legacy.onnx", input_names=["x"], output_names=["y"], dynamo=False,
                          dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}}, do_constant_folding=False)
        torch.onnx.export(m, (x,), where / f"{name}_dynamo.onnx", input_names=["x"], output_names=["y"], dynamo=True, external_data=False)
        without_traces(where / f"{name}_dynamo.onnx")
    (where / "outputs.json").write_text(json.dumps(outputs, separators=(",", ":")) + "\n")


main()
