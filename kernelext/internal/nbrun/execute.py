"""Execute a notebook in a clean kernel and tell the parent of it, a JSON object a line on standard output.

Standard input: {"notebook": text, "kernel": name, "directory": where it runs, "timeout": seconds a cell, "log": file of displays,
"parent": its process}.
"""
import asyncio
import json
import os
import signal
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def displays(path):
    """The number of displays that the cells' programs have sent."""
    try:
        with open(path) as log:
            return sum(1 for line in log if line.strip() and not json.loads(line).get("update"))
    except FileNotFoundError:
        return 0


async def main():
    request = json.load(sys.stdin)
    notebook = nbformat.reads(request["notebook"], as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    for i in code:
        notebook.cells[i].outputs = []
        notebook.cells[i].execution_count = None
    interrupted = False
    before = 0

    def started(cell, cell_index):
        nonlocal before
        if interrupted:
            raise KeyboardInterrupt
        if cell.cell_type == "code":
            before = displays(request["log"])
            tell("start", index=cell_index)

    def ended(cell, cell_index, execute_reply):
        reply = execute_reply["content"]
        tell("end", index=cell_index, status=reply["status"], sent=displays(request["log"]) - before)
        if interrupted:
            raise KeyboardInterrupt

    loop = asyncio.get_running_loop()

    def listen(notebook=None):
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, interrupt)

    client = NotebookClient(
        notebook, kernel_name=request["kernel"], timeout=request["timeout"], record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": request["directory"]}}, on_cell_start=started, on_cell_executed=ended,
        # Once the kernel runs, nbclient has put its own handlers in the place of ours: they end the kernel, and all outputs are lost.
        on_notebook_start=listen,
        # Errors are judged by the parent, which knows which are expected; the first unexpected one ends the run.
        allow_errors=False, force_raise_errors=False,
    )

    def interrupt():
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            asyncio.ensure_future(client.km.interrupt_kernel())

    async def watch():
        # A parent that was killed tells nothing: what it started would go on for hours, and hold what the next run needs.
        while os.getppid() == request["parent"]:
            await asyncio.sleep(1)
        interrupt()

    watcher = asyncio.ensure_future(watch())
    problem = ""
    try:
        await client.async_execute()
    except CellTimeoutError:
        problem = f"a cell took longer than {request['timeout']} s"
    except DeadKernelError:
        problem = "the kernel died"
    except (CellExecutionError, KeyboardInterrupt):
        pass  # the outputs say it
    watcher.cancel()
    tell("notebook", content=nbformat.writes(notebook), problem=problem, interrupted=interrupted)


asyncio.run(main())
