"""Run cells in a kernel. Standard input: {"kernel": name, "cells": [source, ...]}. Standard output: a JSON object a cell."""
import html
import json
import re
import signal
import sys
import time

from jupyter_client.manager import KernelManager

# A kernel is the leader of a session of its own, so it would outlive us.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
request = json.load(sys.stdin)
manager = KernelManager(kernel_name=request["kernel"])
manager.start_kernel(stderr=sys.stderr)
client = manager.client()
client.start_channels()
try:
    client.wait_for_ready(timeout=60)
    for source in request["cells"]:
        output = []

        def collect(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                output.append(content["text"])
            elif message["msg_type"] == "display_data":  # GoNB shows what the compiler says as HTML
                shown = content["data"].get("text/html", "")
                output.append(html.unescape(re.sub(r"(?s)<style>.*?</style>|<[^>]*>", "", shown)))
            elif message["msg_type"] == "error":
                output.append("\n".join([content["ename"], content["evalue"], *content["traceback"]]))

        start = time.perf_counter()
        reply = client.execute_interactive(source, timeout=900, output_hook=collect, allow_stdin=False)
        print(json.dumps({
            "status": reply["content"]["status"],
            "output": "".join(output),
            "seconds": time.perf_counter() - start,
        }), flush=True)
finally:
    # It is asked to stop: GoNB, if killed, leaves gopls and its temporary directory behind.
    manager.shutdown_kernel(now=False)
    client.stop_channels()
