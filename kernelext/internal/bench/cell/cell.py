"""Time cells in several kernels, in turn. Standard input: {"kernels": [...], "rounds": n}. Standard output: a JSON object a sample."""
import json
import random
import signal
import subprocess
import sys
import time

from jupyter_client.manager import KernelManager

# Kernels are leaders of sessions of their own, so they would outlive us.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
request = json.load(sys.stdin)
random.seed(1)

IMPORTS = """import (
	"fmt"
	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/gomlx/gomlx/core/graph"
)
"""
DECLARATIONS = """import "fmt"
var counter = 0
var state = make([]float32, 1<<20)
"""
# Each cell differs from all before, so that nothing is found linked.
CELLS = {
    "command": "%%env ESPALIER_BENCH %d",
    "trivial": '%%%%\nfmt.Println("cell", %d)',
    "counter": '%%%%\ncounter++\nfmt.Println("counter", counter, %d)',
    "4 MB read": '%%%%\nfmt.Println("sum", state[0], %d)',
    "4 MB changed": '%%%%\nstate[7]++\nfmt.Println("state", state[7], %d)',
    "GoMLX": "%%%%\nb, err := backend.Open()\nif err != nil {\n\tpanic(err)\n}\n"
             "fmt.Println(graph.MustExecOnce(b, func(x *graph.Node) *graph.Node { return graph.AddScalar(x, %d) }, float32(1)).Value())",
}


class Kernel:
    def __init__(self, name):
        self.name = name
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel(stderr=subprocess.DEVNULL if name == "python3" else None)  # it warns of what is no matter here
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, case, source):
        start = time.perf_counter()
        reply = self.client.execute_interactive(source, timeout=300, output_hook=lambda message: None, allow_stdin=False)
        seconds = time.perf_counter() - start
        if reply["content"]["status"] != "ok":
            sys.exit(f"{self.name}: {case}: {reply['content']}")
        if case:
            print(json.dumps({"kernel": self.name, "case": case, "seconds": seconds}), flush=True)

    def ask(self, case):
        start = time.perf_counter()
        self.client.kernel_info()
        self.client.get_shell_msg(timeout=60)
        print(json.dumps({"kernel": self.name, "case": case, "seconds": time.perf_counter() - start}), flush=True)

    def stop(self):
        # It is asked to stop: GoNB, if killed, leaves gopls and its temporary directory behind.
        self.manager.shutdown_kernel(now=False)
        self.client.stop_channels()


number = 0


def interleaved(kernels, case, template, prefix=""):
    global number
    for kernel in random.sample(kernels, len(kernels)):
        number += 1
        if kernel.name != "python3":
            kernel.run(case, prefix + template % number)
        elif case in PYTHON:
            kernel.run(case, PYTHON[case] % number)


PYTHON_DECLARATIONS = "from array import array\ncounter = 0\nstate = array('f', bytes(4 << 20))"
PYTHON = {
    "command": "%%env ESPALIER_BENCH %d",
    "trivial": 'print("cell", %d)',
    "counter": 'counter += 1\nprint("counter", counter, %d)',
    "4 MB read": 'print("sum", state[0], %d)',
    "4 MB changed": 'state[7] += 1\nprint("state", state[7], %d)',
}

kernels = []
try:
    kernels = [Kernel(name) for name in request["kernels"]]
    for kernel in kernels:
        kernel.run(None, PYTHON_DECLARATIONS if kernel.name == "python3" else DECLARATIONS)
    interleaved(kernels, None, CELLS["counter"])  # not counted
    for _ in range(request["rounds"]):
        for kernel in random.sample(kernels, len(kernels)):
            kernel.ask("kernel_info")
        interleaved(kernels, "command", CELLS["command"])
        for case in ["trivial", "counter", "4 MB read", "4 MB changed"]:
            interleaved(kernels, case, CELLS[case])
    interleaved(kernels, None, CELLS["GoMLX"], IMPORTS)  # not counted
    for _ in range(request["rounds"]):
        interleaved(kernels, "GoMLX", CELLS["GoMLX"])
    for _ in range(max(3, request["rounds"] // 3)):
        while kernels:
            kernels.pop().stop()
        kernels = [Kernel(name) for name in request["kernels"] if name != "python3"]
        interleaved(kernels, "first GoMLX cell of a kernel", CELLS["GoMLX"], IMPORTS)
finally:
    for kernel in kernels:
        kernel.stop()
