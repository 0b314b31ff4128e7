"""Checks ONNX files and runs them in ONNX Runtime: a line of JSON in for each, a line out. See runtime_test.go."""

import base64
import collections
import json
import sys

import numpy as np
import onnx
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3


def answer(request):
    model = onnx.load(request["model"])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    runs = []
    for inputs in request["runs"]:
        feed = {name: np.frombuffer(base64.b64decode(x["data"]), dtype=x["dtype"]).reshape(x["dims"]) for name, x in inputs.items()}
        outputs = session.run(None, feed)
        runs.append([{"dims": list(y.shape), "data": base64.b64encode(np.ascontiguousarray(y, dtype="<f4").tobytes()).decode()} for y in outputs])
    return {"runs": runs, "operators": collections.Counter(n.op_type for n in model.graph.node), "constants": [c.name for c in model.graph.initializer],
            "opset": model.opset_import[0].version, "ir": model.ir_version, "inputs": [i.name for i in session.get_inputs()],
            "shapes": [[str(d) for d in o.shape] for o in session.get_outputs()]}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as e:  # the test says which file it was
        result = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(result), flush=True)
