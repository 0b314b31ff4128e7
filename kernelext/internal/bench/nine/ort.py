"""ONNX Runtime as a contender: a line of JSON in for each request, a line out. See time.go."""

import hashlib
import json
import logging
import sys
import time

import numpy as np
import onnxruntime

sessions = {}


def load(path, name, batch, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((batch, 28, 28, 1), dtype=np.float32)
    binding = session.io_binding()  # inputs and outputs stay where they are: no call pays for the making of arrays
    shape = [batch if not isinstance(d, int) else d for d in session.get_outputs()[0].shape]
    y = np.empty(shape, dtype=np.float32)
    binding.bind_input(session.get_inputs()[0].name, "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output(session.get_outputs()[0].name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
    sessions[name] = (session, binding, x, y)
    return {}


def run(name, n):
    session, binding, _, _ = sessions[name]
    call, options = session._sess.run_with_iobinding, None
    start = time.perf_counter()
    for _ in range(n):
        call(binding._iobinding, options)
    return {"seconds": time.perf_counter() - start}


def right(path, images, labels):
    """How many images a model recognises. The images are float32, the labels int32, in files."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.fromfile(images, dtype="<f4").reshape(-1, 28, 28, 1)
    y = np.fromfile(labels, dtype="<i4")
    name = session.get_inputs()[0].name
    logits = np.concatenate([session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)])
    return {"right": int((logits.argmax(1) == y).sum()), "n": len(y)}


def quantise(path, to, images):
    """Static int8: weights by channel, activations by the range that they have on calibration images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    logging.disable(logging.WARNING)  # it advises to simplify the graph first: there is nothing left to simplify
    x = np.fromfile(images, dtype="<f4").reshape(-1, 28, 28, 1)
    name = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{name: x[i : i + 64]} for i in range(0, len(x), 64)])

        def get_next(self):
            return next(self.batches, None)

    quantize_static(path, to, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return {"sha256": hashlib.sha256(open(to, "rb").read()).hexdigest()}


print(json.dumps({"version": onnxruntime.__version__}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try:
        result = {"load": load, "run": run, "right": right, "quantise": quantise}[request.pop("do")](**request)
    except Exception as e:  # the caller says for what
        result = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(result), flush=True)
