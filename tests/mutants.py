"""Small breaks of the mathematics, each of which the golden numbers have to notice.

`python tests/mutants.py` breaks a copy of the package in each way and says what noticed it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
Mutant = namedtuple("Mutant", "name file old new case")  # case: a golden one that has to notice it

MUTANTS = [
    Mutant(*o)
    for o in [
        (
            "gradient of the scores",
            "subnet",
            "d_scores = scores.sign().mul_(weight)",
            "d_scores = torch.ones_like(scores).mul_(weight)",
            "mpt-1-32",
        ),
        (
            "gradient of trained signs",
            "subnet",
            "d_weight *= gain(weight, mask) * (weight.abs() <= 1)",
            "d_weight *= weight.abs() <= 1",
            "bnn-1-32",
        ),
        (
            "order of the mask",
            "subnet",
            "self.topk(self.scores.detach().abs(), self.sparsity)",
            "self.topk(self.scores.detach(), self.sparsity)",
            "mpt-1-32",
        ),
        (
            "weights not rewound",
            "prune",
            'v.copy_(start["model"][name])',
            '"bn" in name and v.copy_(start["model"][name])',
            "imp",
        ),
        ("gradients not zeroed", "train", "opt.zero_grad()", "pass", "dense"),
        (
            "derivative of the sign",
            "binarize",
            "2*(1-x.clip(-1,1).abs())",
            "(x.abs()<=1).to(x.dtype)",
            "bnn-1-1",
        ),
        (
            "smallest kept",
            "subnet",
            "self.topk(self.scores.detach().abs(), self.sparsity)",
            "self.topk(-self.scores.detach().abs(), self.sparsity)",
            "mpt-1-32",
        ),
        (
            "gain of all weights",
            "binarize",
            "mask.count_nonzero().clamp(min=1)",
            "weight.numel()",
            "mpt-1-32",
        ),
        (
            "gain by the root mean square",
            "binarize",
            "(weight * mask).abs_().sum() / mask.count_nonzero().clamp(min=1)",
            "((weight * mask).square().sum() / mask.count_nonzero().clamp(min=1)).sqrt()",
            "mpt-1-32",
        ),
        (
            "gain left out",
            "subnet",
            "torch.copysign(gain(weight, m).to(dtype), weight.to(dtype))",
            "torch.copysign(torch.ones_like(weight), weight).to(dtype)",
            "mpt-1-32",
        ),
        (
            "gain rounded to bf16",
            "subnet",
            "gain(weight, m).to(dtype)",
            "gain(weight, m).bfloat16().to(dtype)",
            "mpt-1-32",
        ),
        (
            "sign of zero",
            "binarize",
            "torch.copysign(x.new_ones(()), x+0)",
            "torch.where(x>0, 1., -1.).to(x)",
            "mpt-1-1",
        ),
        (
            "derivative of the sign not cut",
            "binarize",
            "2*(1-x.clip(-1,1).abs())",
            "2*(1-x.abs())",
            "bnn-1-1",
        ),
        ("where the clipped surrogate ends", "binarize", "(x.abs()<=1)", "(x.abs()<=2)", "clipped"),
        (
            "how steep EDE begins",
            "binarize",
            "ede(x, 0.1*100**p)",
            "ede(x, 100**(p-1)/5)",
            "ede",
        ),
        ("height of EDE", "binarize", "max(1, 1/t)*t", "t", "ede"),
        (
            "how pointed ExSTE becomes",
            "binarize",
            "exste(x, 10**(2.8*p-2))",
            "exste(x, 10**(2*p-2))",
            "exste",
        ),
        ("power of ReSTE", "binarize", "reste(x, 1+2*p)", "reste(x, 1+p)", "reste"),
        ("ReSTE near 0", "binarize", "0.1 ** (1/o-1), curve", "0.1 ** (1/o-1)/o, curve", "reste"),
        (
            "skips from the first nonlinearity only",
            "models",
            "x = carried = added(x, carried)",
            "x,carried = added(x, carried),x if carried is None else carried",
            "skips",
        ),
        ("skips past the pools", "models", "carried = layer(carried)", "carried = None", "skips"),
        (
            "channels not repeated",
            "models",
            "or x.shape[1]%carried.shape[1]:",
            "or x.shape[1]!=carried.shape[1]:",
            "skips",
        ),
        (
            "surrogates that know of no progress",
            "train",
            "set_progress(run.model, progress)",
            "set_progress(run.model, 0.0)",
            "ede",
        ),
        (
            "straight through beyond one",
            "subnet",
            "d_weight *= gain(weight, mask) * (weight.abs() <= 1)",
            "d_weight *= gain(weight, mask)",
            "cycles learned",
        ),
        (
            "scale of the first scores",
            "subnet",
            "((2*u-1)/np.prod(shape[1:])**0.5)",
            "((2*u-1)*(3/np.prod(shape[1:]))**.5)",
            "mpt-1-32",
        ),
        (
            "fan of the weights",
            "subnet",
            "2/np.prod(shape[1:])/(scale_fan or 1)",
            "2/shape[0]/(scale_fan or 1)",
            "dense",
        ),
        (
            "scale of the kept fan",
            "subnet",
            "/(scale_fan or 1))**0.5",
            "*(scale_fan or 1))**0.5",
            "scaled",
        ),
        (
            "fraction of the kept fan",
            "experiment",
            "c.scale_fan and 1-c.sparsity",
            "c.scale_fan and c.sparsity",
            "scaled",
        ),
        (
            "scale of constant weights",
            "subnet",
            "z = np.where(z<0, -1.0, 1.0)",
            "z = np.where(z<0, -1.0, 1.0)/2**.5",
            "signed",
        ),
        (
            "sign of constant weights",
            "subnet",
            "z = np.where(z<0, -1.0, 1.0)",
            "z = np.where(z<0, 1.0, -1.0)",
            "signed",
        ),
        (
            "weights of another draw",
            "subnet",
            "stream(seed, name, 'weight',",
            "stream(seed+1, name, 'weight',",
            "dense",
        ),
        (
            "momentum of SGD",
            "train",
            "torch.optim.SGD(params, momentum=momentum,",
            "torch.optim.SGD(params, momentum=0.0,",
            "sgd",
        ),
        (
            "weight decay of SGD",
            "train",
            "torch.optim.SGD(params, momentum=momentum, **given)",
            "torch.optim.SGD(params, momentum=momentum, **given | dict(weight_decay=0.0))",
            "sgd",
        ),
        ("momentum of Adam", "train", "(momentum,0.999)", "(.9,.999)", "adam"),
        ("second moment of Adam", "train", "(momentum,0.999)", "(momentum,.99)", "adam"),
        (
            "weight decay of Adam",
            "train",
            "(momentum,0.999), **given)",
            "(momentum,0.999), **given | dict(weight_decay=0.0))",
            "adam",
        ),
        (
            "weight decay apart from the gradient",
            "train",
            "torch.optim.Adam(",
            "torch.optim.AdamW(",
            "adam",
        ),
        (
            "label smoothing",
            "train",
            ", label_smoothing=label_smoothing)\n    if",
            ")\n    if",
            "smoothing warmup",
        ),
        (
            "cosine",
            "train",
            "return lr*(1+math.cos(math.pi*(progress-warmup)/(1-warmup)))/2",
            "return lr*(1-(progress-warmup)/(1-warmup))",
            "dense",
        ),
        (
            "cosine one step ahead",
            "train",
            "(run.epoch + run.step / run.steps) / cfg.epochs",
            "(run.epoch + (run.step + 1) / run.steps) / cfg.epochs",
            "dense",
        ),
        ("warmup", "train", "return lr*progress/warmup", "return lr", "smoothing warmup"),
        (
            "cosine after the warmup",
            "train",
            "(progress-warmup)/(1-warmup)",
            "progress",
            "smoothing warmup",
        ),
        (
            "global as of each layer",
            "mask",
            "if pick(SCOPES, scope, 'scope') == 'layer': return",
            "if True: return",
            "global",
        ),
        ("ramp", "prune", "*(1-done)**3", "*(1-done)**2", "global"),
        ("length of the ramp", "prune", "min(10, cfg.epochs/2)", "min(10, cfg.epochs)", "global"),
        (
            "number of removed weights",
            "mask",
            "return int(Fraction(str(sparsity))*n)",
            "return min(n-1, -int(-Fraction(str(sparsity))*n//1))",
            "plain",
        ),
        (
            "sparsities of the cycles",
            "prune",
            "round(1-(1-sparsity)**(cycle/cycles), 12)",
            "round(sparsity*cycle/cycles, 12)",
            "imp",
        ),
        (
            "pruned at once, not after each batch",
            "prune",
            "if cfg.mini_batch else 1",
            "if False else 1",
            "mini-batch",
        ),
        (
            "what came back competes again",
            "subnet",
            ".masked_fill(~part.fixed, -1)",
            "",
            "imp-reinit",
        ),
        (
            "pruned by the sign",
            "subnet",
            "by[part.method.mask].detach().abs()",
            "by[part.method.mask].detach()",
            "imp",
        ),
        (
            "weights not drawn again",
            "prune",
            "subnet.init, draw=cycle)",
            "subnet.init, draw=0)",
            "imp-reinit",
        ),
        (
            "other weights drawn again",
            "prune",
            "subnet.init, draw=cycle)",
            "draw=cycle)",
            "signed cycles",
        ),
        (
            "batch normalisation not rewound",
            "prune",
            'v.copy_(start["model"][name])',
            '"running" in name or v.copy_(start["model"][name])',
            "cycles learned",
        ),
        (
            "optimiser not rewound",
            "prune",
            "opt.load_state_dict(deepcopy(start['optimizer']))",
            "pass",
            "imp",
        ),
        (
            "rewound before the epoch",
            "train",
            "== (0, cfg.rewind_epoch, 0):",
            "== (0, 0, 0):",
            "rewind",
        ),
        (
            "scores rewound, too",
            "prune",
            "return own_state(model) | weights",
            'return {k: v for k, v in model.state_dict().items() if "fixed" not in k} | weights',
            "imp-score",
        ),
        (
            "last part of a batch",
            "data",
            "n // size if training else",
            "-(-n // size) if training else",
            "dense",
        ),
        (
            "order of the images",
            "data",
            "stream(seed, 'order', epoch)",
            "stream(seed, 'order', 0)",
            "dense",
        ),
        (
            "another split",
            "data",
            "stream(seed, 'validation')",
            "stream(0, 'validation')",
            "learned",
        ),
        (
            "order of the cycles",
            "train",
            "number = run.cycle * cfg.epochs + run.epoch",
            "number = run.epoch",
            "imp",
        ),
        ("normalisation", "data", "((x-mean)/std)", "(x/std-mean)", "dense"),
        ("mirrored upside down", "data", "x.flip(-1), x)", "x.flip(-2), x)", "augmentation"),
        (
            "always mirrored",
            "data",
            "mirrored.bool()",
            "(mirrored + 1).bool()",
            "augmentation",
        ),
        (
            "shift",
            "data",
            "places = 2 * shift + 1",
            "places = 2 * shift",
            "augmentation",
        ),
        ("evaluated as in training", "train", "    model.eval()\n    with", "    with", "learned"),
        (
            "mean in the place of the largest",
            "models",
            "yield f'{name}_pool', nn.MaxPool2d(2)",
            "yield f'{name}_pool', nn.AvgPool2d(2)",
            "bnn-1-32",
        ),
        (
            "binarised with all bits",
            "experiment",
            "used_weight(m.weight, m.weight!=0, 1)",
            "used_weight(m.weight, m.weight!=0, 32)",
            "binarised",
        ),
        (
            "test in the place of validation",
            "experiment",
            "(parts.val, parts.test))\n",
            "(parts.test, parts.val))\n",
            "imp-reinit",
        ),
        ("precision", "train", "enabled=precision=='bf16'", "enabled=False", "bf16 dense"),
    ]
]
QUICK = MUTANTS[:6]


def pattern(code):
    "Finds the code however it is laid out: spaces, line breaks, trailing commas and kinds of quotes"
    as_is = {"'": "[\"']", '"': "[\"']", ")": r",?\s*\)", "]": r",?\s*\]"}
    return r"\s*".join(as_is.get(c, re.escape(c)) for c in code if not c.isspace())


def found(mutant, root=REPO):
    "The file that the mutant changes, and its changed text"
    file = root / "mplt" / f"{mutant.file}.py"
    text, old = file.read_text(encoding="utf8"), pattern(mutant.old)
    times = len(re.findall(old, text))
    how = f"found {times} times" if times else "not found"
    assert times == 1, f"{mutant.name}: old text {how} in {file.name}: write this mutant anew"
    return file, re.sub(old, lambda _: mutant.new, text)


def deviations(mutant, *cases):
    "Of the golden cases (all if none is named) that notice the mutant: the worst deviation, in tolerances"
    with tempfile.TemporaryDirectory() as folder:
        for part in "mplt", "tests", "data/mnist5k":
            shutil.copytree(REPO / part, Path(folder) / part)
        shutil.copy(REPO / "settings.ini", folder)
        file, text = found(mutant, Path(folder))
        file.write_text(text, encoding="utf8")
        env = os.environ | dict(PYTHONPATH=folder, OMP_NUM_THREADS="1", MPLT_THREADS="1")
        command = [sys.executable, "tests/test_golden.py", *cases]
        p = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert p.returncode == 0, (
        f"{mutant.name}: it does not run, write this mutant anew\n{p.stderr[-2000:]}"
    )
    far = {case: float(far) for case, far, _ in (line.split(";") for line in p.stdout.splitlines())}
    return {case: o for case, o in far.items() if o >= 1}


def noticed(mutant):
    "By the case that has to, or else by any"
    return deviations(mutant, mutant.case) or deviations(mutant)


def result(mutant):
    "A line of the table, and whether all is well"
    try:
        by = noticed(mutant)
    except AssertionError as e:
        return str(e), False
    return f"{mutant.name} | {', '.join(by) or 'NONE'} | {max(by.values(), default=0):.3g}", bool(
        by
    )


if __name__ == "__main__":
    print("mutant | caught by which golden cases | worst deviation/tolerance")
    well = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for line, ok in pool.map(result, MUTANTS):
            print(line, flush=True)
            well.append(ok)
    sys.exit(not all(well))
