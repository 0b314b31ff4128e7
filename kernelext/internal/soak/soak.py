"""Run many cells in one kernel and see what it holds. Standard input: {"kernel", "cells", "directory"}. Standard output: a JSON object a sample, and one for the end."""
import json
import os
import signal
import sys
import time

import psutil
from jupyter_client.manager import KernelManager

signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
request = json.load(sys.stdin)
os.environ["TMPDIR"] = request["directory"]  # so that what is left there is ours

# Each ends as it should; no two Go cells are the same, so that nothing is found built.
CELLS = [
    ('fmt.Println("cell", %d)', "ok"), ("counter += 1\ncounter + %d", "ok"), ("!true # %d", "ok"), ("%%who counter", "ok"),
    ('panic("cell %d")', "error"), ("undefined%d", "error"), ("!false # %d", "error"), ("%%nosuch%d", "error"),
    ("for range 2000 {\n\tfmt.Println(%d)\n}", "ok"), ("x := make([]int, %d)\nlen(x)", "ok"), ("x := )%d", "error"), ("", "ok"),
]

manager = KernelManager(kernel_name=request["kernel"])
manager.start_kernel()
kernel = psutil.Process(manager.provisioner.pid)
client = manager.client()
client.start_channels()
try:
    client.wait_for_ready(timeout=60)
    run = lambda code: client.execute_interactive(code, timeout=300, output_hook=lambda m: None, allow_stdin=False)["content"]["status"]
    if run('import "fmt"\nvar counter = 0') != "ok":
        sys.exit("the first cell failed")
    wrong = []

    def sample(n):
        family = [kernel, *kernel.children(recursive=True)]
        of = {}
        for p in family:
            try:
                name = p.name()
                of[name] = {"rss": p.memory_info().rss, "files": p.num_fds()}
            except psutil.Error:
                pass
        print(json.dumps({"cells": n, "processes": len(of), "of": of, "left": len(os.listdir(request["directory"])), "wrong": wrong[:3]}), flush=True)

    every = max(1, request["cells"] // 10)
    for n in range(1, request["cells"] + 1):
        code, want = CELLS[n % len(CELLS)]
        code = code % n if "%d" in code else code % ()
        if (got := run(code)) != want:
            wrong.append(f"{code!r}: {got}")
        if n % every == 0:
            time.sleep(0.2)
            sample(n)
    time.sleep(6)  # pipes that GoNB leaves are removed when they have become old
finally:
    family = kernel.children(recursive=True)
    manager.shutdown_kernel(now=False)
    client.stop_channels()
psutil.wait_procs(family, timeout=10)
print(json.dumps({"end": True, "alive": [p.name() for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE],
                  "files": sorted(os.listdir(request["directory"]))}), flush=True)
