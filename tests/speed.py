"""How fast is a ticket that runs in bits?  python tests/speed.py [FILE.csv [AVX2]]

Processor time of one thread, every engine in turn in one process, so that a busy machine slows all alike;
medians. Against PyTorch in fp32 (eager or compiled, whichever is faster), as it comes or kept to AVX2, and
onnxruntime in fp32 and int8 (static, a scale a channel), which cannot be kept to anything. Tickets are
untrained: time does not depend on what they have learned. Writes a CSV if told where.
"""

import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

if "AVX2" in sys.argv:  # a process of its own: PyTorch is told before it is loaded
    os.environ |= dict(
        ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2"
    )

import numpy as np
import onnxruntime
import pandas as pd
import torch
from onnxruntime import quantization as q

from mplt import infer, ticket
from mplt.export import export
from mplt.models import build
from mplt.subnet import as_subnet, weighted

TICKETS = [
    ("conv4", "mpt-1-1", 0.5),
    ("conv6", "mpt-1-1", 0.5),
    ("vgg-small", "mpt-1-1", 0.5),
    ("vgg-small", "mpt-1-1", 0.9),
    ("conv4", "mpt-1-32", 0.9),
    ("conv6", "mpt-1-32", 0.9),
    ("conv6", "mpt-1-32", 0.95),
]


class Noise(q.CalibrationDataReader):
    def __init__(self):
        rng = np.random.RandomState(0)
        self.batches = iter([dict(images=rng.randn(4, 3, 32, 32).astype("f4")) for _ in range(4)])

    def get_next(self):
        return next(self.batches, None)


def channels_last(x):
    return torch.from_numpy(x).contiguous(memory_format=torch.channels_last)


def session(path):
    o = onnxruntime.SessionOptions()
    o.intra_op_num_threads = o.inter_op_num_threads = 1
    o.log_severity_level = 3
    return onnxruntime.InferenceSession(path, o, providers=["CPUExecutionProvider"])


def engines(arch, method, sparsity, folder):
    "Name: a function of images; and how much smaller the weights are in bits"
    torch.manual_seed(0)
    act = "sign" if method == "mpt-1-1" else "relu"
    net = as_subnet(build(arch, (3, 32, 32), 10, bn="plain", act=act), method, sparsity)
    net.train()(torch.randn(16, 3, 32, 32))
    path, fp32, int8 = (f"{folder}/{o}" for o in ("ticket", "net.onnx", "int8.onnx"))
    ticket.save(path, net)
    net, bits = ticket.load(path), ticket.load(path, engine="bits")
    export(path, fp32)
    kinds = dict(weight_type=q.QuantType.QInt8, activation_type=q.QuantType.QUInt8)
    q.quantize_static(fp32, int8, Noise(), per_channel=True, **kinds)
    fp32, int8 = session(fp32), session(int8)
    arrays = [v for s in bits.program.steps for v in s.values() if isinstance(v, np.ndarray)]
    full = sum(4 * m.weight.numel() for m in weighted(net).values())
    compiled = torch.compile(net, dynamic=False)
    run = dict(
        bits=lambda x: bits(x),
        eager=lambda x: net(channels_last(x)),
        compiled=lambda x: compiled(channels_last(x)),
        onnx=lambda x: fp32.run(None, dict(images=x)),
        int8=lambda x: int8.run(None, dict(images=x)),
    )
    return run, full / sum(v.nbytes for v in arrays)


@torch.no_grad()
def measure(run, batch, rounds):
    "Milliseconds, median"
    x = np.random.RandomState(1).randn(batch, 3, 32, 32).astype("f4")
    times = {k: [] for k in run}
    for _ in range(rounds + 2):
        for k, f in run.items():
            start = time.process_time()
            f(x)
            times[k].append(time.process_time() - start)
    return {k: 1000 * statistics.median(v[2:]) for k, v in times.items()}


def processor():
    try:
        found = [o for o in open("/proc/cpuinfo") if o.startswith(("model name", "flags"))]
    except OSError:
        return platform.processor()
    name, flags = found[0].split(":")[1].strip(), found[1].split()
    return f"{name}, {' '.join(o for o in ('avx2', 'avx512bw', 'avx512_vnni') if o in flags)}"


def rows(folder):
    for arch, method, sparsity in TICKETS:
        run, smaller = engines(arch, method, sparsity, folder)
        for batch in 1, 32:
            ms = measure(run, batch, 15 if batch == 1 else 7)
            row = dict(network=arch, method=method, zeros=f"{sparsity:.0%}", batch=batch)
            row["fp32 bytes / bits bytes"] = round(smaller, 1)
            row |= {f"{k} ms": round(v, 2) for k, v in ms.items()}
            best = dict(torch=min(ms["eager"], ms["compiled"]), onnx=ms["onnx"], int8=ms["int8"])
            row |= {f"x {k}": round(v / ms["bits"], 1) for k, v in best.items()}
            print(row, flush=True)
            yield row


def main(out=None, isa="all"):
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    cc = subprocess.run([*infer.compiler(), "--version"], capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        table = pd.DataFrame(rows(folder))
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    what = f"{processor()}; {cc.splitlines()[0]}; {versions}"
    table = table.assign(torch_may_use=isa, machine=what)
    print(table.drop(columns="machine").to_string(index=False), what, sep="\n")
    if out:
        table.to_csv(out, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
