"""PyTorch's DistributedDataParallel over gloo: the same MLP, batches and optimizer, without parameter servers.

Starts one process a rank; all average their gradients after every batch, so an iteration is one step from as many
batches as there are ranks. Prints one JSON line: the samples (unix time, iteration) of rank 0 and the rate.

It is tuned in its favour: the data are one tensor that is indexed, no loader; one thread a rank, since the ranks fill
the cores; and the best of the variants that `--tune` measures.

Runs in a Python that has PyTorch and NumPy (`make bench-torch`): tfleet itself does not need PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measure import peer_parser, rate
from replicas import Samples, addresses, end, read_samples, start
from tuning import tune

AXES = {"bucket_mb": (1, 25), "bucket_view": ("yes", "no"), "fused": ("yes", "no"), "static_graph": ("yes", "no")}


def main() -> None:
    """Runs one rank, all variants, or one job."""
    parse = peer_parser(__doc__, steps=5000, warmup=300)
    parse.add_argument("--ranks", type=int, default=2)
    parse.add_argument("--bucket-mb", type=int, default=25, help="gradients that are averaged in one call, MB")
    parse.add_argument("--bucket-view", choices=["yes", "no"], default="yes", help="gradients lie in the buckets")
    parse.add_argument("--fused", choices=["yes", "no"], default="yes", help="Adam as one kernel")
    parse.add_argument("--static-graph", choices=["yes", "no"], default="yes")
    parse.add_argument("--tune", type=int, default=0, metavar="REPEATS", help="measure all variants instead")
    parse.add_argument("--rank", type=int, default=-1, help=argparse.SUPPRESS)
    parse.add_argument("--address", default="", help=argparse.SUPPRESS)
    parse.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parse.parse_args()
    if options.rank >= 0:
        run_rank(options)
    elif options.tune:
        common = [f"--steps={options.steps}", f"--hidden-units={options.hidden_units}"]
        about = {
            "name": f"torch_ddp_{options.hidden_units}_tuning",
            "program": "PyTorch DDP",
            "data": options.data,
            "settings": {"hidden_units": options.hidden_units, "ranks": options.ranks},
        }
        tune(__file__, AXES, common, options.tune, about)
    else:
        print(json.dumps(job(options)))


def job(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all ranks to the end; returns samples, rate, and how well the model does on the training data."""
    with tempfile.TemporaryDirectory(prefix="torch-ddp-") as folder:
        (address,) = addresses(1)
        own = ["--address", address, "--folder", folder]
        ranks = [start([__file__, *sys.argv[1:], "--rank", str(rank), *own]) for rank in range(options.ranks)]
        try:
            codes = [rank.wait(timeout=1800) for rank in ranks]
        finally:
            end(ranks)
        if any(codes):
            raise SystemExit(f"ranks of PyTorch DDP ended with {codes}")
        samples = read_samples(Path(folder) / "samples")
        facts = json.loads((Path(folder) / "facts").read_text(encoding="utf-8"))
    return {
        "steps_per_second": rate(samples, options.warmup),
        "steps": samples[-1][1],
        "warmup": options.warmup,
        "samples": samples,
        **facts,
    }


def run_rank(options: argparse.Namespace) -> None:
    """Is one rank; rank 0 leaves samples and facts in the folder."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as distributed

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    init = f"tcp://{options.address}"
    distributed.init_process_group("gloo", init_method=init, rank=options.rank, world_size=options.ranks)
    data = np.load(options.data)
    x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"].astype(np.int64))
    model = torch.nn.Sequential(
        torch.nn.Linear(784, options.hidden_units), torch.nn.ReLU(), torch.nn.Linear(options.hidden_units, 10)
    )
    parallel = torch.nn.parallel.DistributedDataParallel(
        model,
        bucket_cap_mb=options.bucket_mb,
        gradient_as_bucket_view=options.bucket_view == "yes",
        static_graph=options.static_graph == "yes",
    )
    samples = train(torch, parallel, x[options.rank :: options.ranks], y[options.rank :: options.ranks], options)
    if options.rank == 0:
        samples.write(Path(options.folder, "samples"))
        with torch.no_grad():
            accuracy = float((model(x).argmax(1) == y).float().mean())
        facts = {"train_accuracy": accuracy, "versions": {"torch": torch.__version__}}
        Path(options.folder, "facts").write_text(json.dumps(facts), encoding="utf-8")
    distributed.barrier()
    # Not by way of gloo's and Python's end, in which a thread of gloo aborts some runs after all is measured.
    os._exit(0)


def train(torch: Any, parallel: Any, x: Any, y: Any, options: argparse.Namespace) -> Samples:
    """Trains on this rank's samples; returns when which iteration was done."""
    fused = {"fused": True} if options.fused == "yes" else {"foreach": True}
    optimizer = torch.optim.Adam(parallel.parameters(), lr=options.learning_rate, **fused)
    cross_entropy = torch.nn.CrossEntropyLoss()
    random = torch.Generator().manual_seed(options.rank)
    samples = Samples()
    batches: list[Any] = []
    for step in range(1, options.steps + 1):
        if not batches:
            whole = len(x) // options.batch_size * options.batch_size
            batches = list(torch.randperm(len(x), generator=random)[:whole].split(options.batch_size))
        rows = batches.pop()
        optimizer.zero_grad(set_to_none=options.bucket_view == "no")
        cross_entropy(parallel(x[rows]), y[rows]).backward()
        optimizer.step()
        if samples.due() or step == options.steps:
            samples.take(step)
    return samples


if __name__ == "__main__":
    main()
