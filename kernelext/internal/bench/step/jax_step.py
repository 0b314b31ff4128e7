"""Train LeNet-300-100 with JAX: first say JAX's version, then do as many steps as each line of standard input says. Arguments: batch, learning rate.

A strong peer: one jitted step with the batch gathered inside it from data on the device, donated buffers, two threads at most by the machine.
The values of the data do not matter to its speed.
"""
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

batch, rate = int(sys.argv[1]), float(sys.argv[2])
n = 55_000
rng = np.random.default_rng(1)
images = jnp.asarray(rng.integers(0, 256, (n, 784), dtype=np.uint8))
labels = jnp.asarray(rng.integers(0, 10, n, dtype=np.int32))
sizes = [784, 300, 100, 10]
params = [
    (jnp.asarray(rng.normal(0, np.sqrt(2 / i), (i, o)), jnp.float32), jnp.zeros(o, jnp.float32))
    for i, o in zip(sizes[:-1], sizes[1:])
]
zeros = jax.tree.map(jnp.zeros_like, params)


def loss(params, x, y):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    logits = x @ w + b
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0])


@functools.partial(jax.jit, donate_argnums=(0,))
def step(state, images, labels, indices):
    params, m, v, t = state
    x = images[indices].astype(jnp.float32) / 255
    value, grads = jax.value_and_grad(loss)(params, x, labels[indices])
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    scale = rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    params = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-7), params, m, v)
    return (params, m, v, t), value


state = (params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.float32(0))
order, at = rng.permutation(n).astype(np.int32), 0
print(jax.__version__, flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        if at + batch > n:
            order, at = rng.permutation(n).astype(np.int32), 0
        state, value = step(state, images, labels, order[at:at + batch])
        at += batch
    jax.block_until_ready(state)
    print("done", flush=True)
