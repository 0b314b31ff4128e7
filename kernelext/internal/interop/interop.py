"""Try the kernel with the programs that run notebooks. Standard input: {"kernel", "dir", "translator", "notebook": path or ""}. Standard output: a JSON object a check."""
import asyncio
import copy
import json
import os
import re
import subprocess
import sys
import time
from queue import Empty

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

request = json.load(sys.stdin)
kernel, work = request["kernel"], request["dir"]
SPEC = {"kernelspec": {"name": kernel, "display_name": "Go", "language": "go"}, "language_info": {"name": "go", "file_extension": ".go"}}
sys.path.insert(0, request["translator"])


def notebook(*cells):
    return new_notebook(cells=[c if not isinstance(c, str) else new_code_cell(c) for c in cells], metadata=copy.deepcopy(SPEC))


def texts(nb):
    """What each code cell shows, as text."""
    shown = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            out = []
            for o in cell.outputs:
                if o.output_type == "stream":
                    out.append(o.text)
                elif o.output_type == "error":
                    out.append(f"{o.ename}: {o.evalue}")
                else:
                    out.append(str(o.data.get("text/plain", "")))
            shown.append("".join(out))
    return shown


def expect(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def run(nb, **options):
    NotebookClient(nb, kernel_name=kernel, timeout=300, coalesce_streams=True, resources={"metadata": {"path": work}}, **options).execute()
    return nb


def with_nbclient():
    nb = run(notebook('import "fmt"\nvar n = 1', "n++\nfmt.Println(n)", "n + 40"))
    expect(texts(nb), ["", "2\n", "42"])
    expect([c.execution_count for c in nb.cells], [1, 2, 3])
    try:
        run(notebook('panic("boom")', "1"))
        raise AssertionError("a notebook with a panic passes")
    except CellExecutionError as e:
        expect((e.ename, e.evalue), ("panic", "boom"))
    nb = run(notebook("!exit 3", "%nosuch", "1 + 1"), allow_errors=True)
    expect(texts(nb), ["ShellError: exit status 3", "MagicError: there is no command %nosuch; %help lists those there are", "2"])


def with_nbmake():
    for name, nb in {"good": notebook('import "fmt"\nfmt.Println("fine")'), "bad": notebook("!exit 3")}.items():
        nbformat.write(nb, os.path.join(work, name + ".ipynb"))
    p = subprocess.run([sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", "good.ipynb", "bad.ipynb"],
                       cwd=work, capture_output=True, text=True, timeout=300)
    if "1 failed, 1 passed" not in p.stdout:
        raise AssertionError(p.stdout[-1000:] + p.stderr[-1000:])


def with_papermill():
    import papermill
    import papermill_go  # noqa: F401  registers the translator

    nb = notebook(new_markdown_cell("# Parameters"), 'import "fmt"',
                  new_code_cell('var epochs = 1\nvar rate = 0.5\nvar name = "a"\nvar seeds = []int{1}\nvar quick = false\nvar extra any\nvar more = map[string]float64{}',
                                metadata={"tags": ["parameters"]}),
                  'fmt.Printf("%v %v %q %v %v %v %v\\n", epochs, rate, name, seeds, quick, extra, more)')
    source, target = os.path.join(work, "parameters.ipynb"), os.path.join(work, "out.ipynb")
    nbformat.write(nb, source)
    papermill.execute_notebook(source, target, progress_bar=False, cwd=work, parameters=dict(
        epochs=3, rate=1e-3, name='b "c"\n\\é', seeds=[1, 2], quick=True, extra=None, more={"x": 1.5}))
    got = texts(nbformat.read(target, 4))
    expect(got[-1], '3 0.001 "b \\"c\\"\\n\\\\é" [1 2] true <nil> map[x:1.5]\n')


def with_jupytext():
    import jupytext

    nb = notebook(new_markdown_cell("# Title"), 'import "fmt"\n\n%%\nfmt.Println("explicit")', "!echo shell", 'fmt.Println("statements")')
    text = jupytext.writes(nb, "go:percent")
    for line in text.splitlines():
        if re.match(r"[%!]", line):
            raise AssertionError(f"a command that Go tools would see: {line!r}")
    back = jupytext.reads(text, "go:percent")
    back.metadata.update(copy.deepcopy(SPEC))
    expect(texts(run(back)), ["explicit\n", "shell\n", "statements\n"])
    # GoNB's own way to hide commands from Go tools.
    expect(texts(run(notebook('import "fmt"\n\n//gonb:%%\nfmt.Println("hidden")'))), ["hidden\n"])


def interrupted_at_each_stage():
    """Stop at whatever stage ends the cell, the next cell runs, and the variables are whole."""
    from jupyter_client.manager import start_new_kernel

    km, kc = start_new_kernel(kernel_name=kernel)

    def cell(code, stop=None):
        """Run a cell; stop says of a message whether to interrupt now, or how many seconds after the start."""
        sent = kc.execute(code)
        begun, shown, done = time.monotonic(), [], False
        while True:
            try:
                m = kc.get_iopub_msg(timeout=0.02)
            except Empty:
                m = None
            if time.monotonic() - begun > 120:
                raise AssertionError(f"{code!r} does not end")
            if not done and stop is not None and (
                    time.monotonic() - begun > stop if isinstance(stop, float)
                    else m is not None and m["msg_type"] == "stream" and stop in m["content"]["text"]):
                km.interrupt_kernel()
                done = True
            if m is None or m["parent_header"].get("msg_id") != sent:
                continue
            if m["msg_type"] == "status" and m["content"]["execution_state"] == "idle":
                break
            if m["msg_type"] == "stream":
                shown.append(m["content"]["text"])
            elif m["msg_type"] in ("execute_result", "display_data"):
                shown.append(m["content"]["data"].get("text/plain", ""))
        reply = kc.get_shell_msg(timeout=30)["content"]
        return reply.get("ename", reply["status"]), "".join(shown)

    try:
        gomlx = ('import ("fmt"; "time"; "github.com/espalier-ml/espalier/pkg/backend"; "github.com/gomlx/gomlx/core/graph")\n'
                 "var n = 1\nvar big = make([]float32, 1<<25)\n"
                 "func step(x []float32) []float32 {\n\tb, err := backend.Open()\n\tif err != nil {\n\t\tpanic(err)\n\t}\n"
                 "\treturn graph.MustExecOnce(b, func(x *graph.Node) *graph.Node { return graph.AddScalar(x, 1) }, x).Value().([]float32)\n}\n")
        expect(cell(gomlx), ("ok", ""))
        expect(cell("n = 100\ny := step([]float32{1})\nfmt.Println(y)", stop=0.15)[0], "Interrupted")  # compiling
        expect(cell("n"), ("ok", "1"))
        expect(cell('n = 2\nfmt.Println("first")\ntime.Sleep(time.Minute)', stop="first")[0], "Interrupted")
        expect(cell("n"), ("ok", "2"))
        expect(cell('x := []float32{0}\nfor i := 0; ; i++ {\n\tx = step(x)\n\tn = 3\n\tif i == 3 {\n\t\tfmt.Println("stepping")\n\t}\n}', stop="stepping")[0], "Interrupted")
        expect(cell("n"), ("ok", "3"))
        # It is saving when the last line has been printed. What it saves is whole, or what was before.
        outcome, _ = cell('for i := range big {\n\tbig[i] = 7\n}\nn = 4\nfmt.Println("saving")', stop="saving")
        if outcome not in ("ok", "Interrupted"):
            raise AssertionError(f"interrupted while it saved: {outcome}")
        outcome, shown = cell('for i := range big {\n\tif big[i] != big[0] {\n\t\tpanic("torn")\n\t}\n}\nfmt.Println(n, big[0])')
        if outcome != "ok" or shown not in ("4 7\n", "3 0\n"):
            raise AssertionError(f"after an interrupt while it saved: {outcome} {shown!r}")
        expect(cell("!sleep 60 # a shell command", stop=0.5)[0], "Interrupted")
    finally:
        kc.stop_channels()
        km.shutdown_kernel(now=False)


def restarted_midway():
    """A notebook of the course, run cell by cell, restarted midway and run again; and by papermill: the outputs are equal."""
    import papermill
    import papermill_go  # noqa: F401

    path = request["notebook"]
    if not path:
        return "skipped"
    here = os.path.dirname(path)
    os.environ["ESPALIER_FAST"] = "1"

    async def by_cell():
        nb = nbformat.read(path, 4)
        client = NotebookClient(nb, kernel_name=kernel, timeout=900, coalesce_streams=True, resources={"metadata": {"path": here}})
        code = [i for i, c in enumerate(nb.cells) if c.cell_type == "code"]
        os.environ["ESPALIER_STATE"] = os.path.join(work, "by-cell")
        async with client.async_setup_kernel():
            for i in code[: len(code) // 2]:
                await client.async_execute_cell(nb.cells[i], i)
            await client.km.restart_kernel(now=False)
            await client.kc.wait_for_ready(timeout=60)
            for i in code:
                await client.async_execute_cell(nb.cells[i], i, execution_count=None)
        return nb

    ours = asyncio.run(by_cell())
    os.environ["ESPALIER_STATE"] = os.path.join(work, "papermill")
    target = os.path.join(work, "course.ipynb")
    papermill.execute_notebook(path, target, kernel_name=kernel, language="go", progress_bar=False, cwd=here)
    theirs = nbformat.read(target, 4)

    def pictures(nb):
        return [o.data.get("image/svg+xml") for c in nb.cells if c.cell_type == "code" for o in c.outputs if "data" in o and "image/svg+xml" in o.data]

    # What is said of a run that was found again, and how long things took, is not what it computed.
    def bare(shown):
        return [re.sub(r"\d+(\.\d+)? ?(ms|s|min|µs)\b", "", t) for t in shown]

    expect(bare(texts(ours)), bare(texts(theirs)))
    expect(len(pictures(ours)), len(pictures(theirs)))
    expect(pictures(ours), pictures(theirs))


for check in [with_nbclient, with_nbmake, with_papermill, with_jupytext, interrupted_at_each_stage, restarted_midway]:
    name = check.__name__.replace("_", " ")
    try:
        outcome = {"check": name, "ok": True, "detail": check() or ""}
    except Exception as e:  # noqa: BLE001  whatever it is, it is the check's result
        outcome = {"check": name, "ok": False, "detail": f"{type(e).__name__}: {e}"}
    print(json.dumps(outcome), flush=True)
