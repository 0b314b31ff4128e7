# Writes python.safetensors. safetensors 0.6.2, numpy 2.2.6.
import numpy as np
from safetensors.numpy import save_file

save_file({
    "weights": np.arange(4, dtype=np.float32).reshape(2, 2),
    "mask": np.array([True, False, True]),
    "step": np.array(7, dtype=np.int64),
    "none": np.zeros((0, 4), dtype=np.float16),
}, "python.safetensors", metadata={"made": "by Python"})
