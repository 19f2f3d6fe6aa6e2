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
Mutant = namedtuple("Mutant", "name file case old new")  # case: a golden one that has to notice it

# Name, module, case; then what is taken out (laid out in whatever way) and what is put in its place
BREAKS = r"""
gradient of the scores | subnet | mpt-1-32
- d_scores = scores.sign().mul_(weight)
+ d_scores = torch.ones_like(scores).mul_(weight)

gradient of trained signs | subnet | bnn-1-32
- d_weight *= gain(weight, mask) * (weight.abs() <= 1)
+ d_weight *= weight.abs() <= 1

order of the mask | subnet | mpt-1-32
- self.topk(self.scores.detach().abs(), self.sparsity)
+ self.topk(self.scores.detach(), self.sparsity)

weights not rewound | prune | imp
- v.copy_(start["model"][name])
+ "bn" in name and v.copy_(start["model"][name])

gradients not zeroed | train | dense
- opt.zero_grad()
+ pass

derivative of the sign | binarize | bnn-1-1
- 2*(1-x.clip(-1,1).abs())
+ (x.abs()<=1).to(x.dtype)

smallest kept | subnet | mpt-1-32
- self.topk(self.scores.detach().abs(), self.sparsity)
+ self.topk(-self.scores.detach().abs(), self.sparsity)

gain of all weights | binarize | mpt-1-32
- mask.count_nonzero().clamp(min=1)
+ weight.numel()

gain by the root mean square | binarize | mpt-1-32
- (weight * mask).abs_().sum() / mask.count_nonzero().clamp(min=1)
+ ((weight * mask).square().sum() / mask.count_nonzero().clamp(min=1)).sqrt()

gain left out | subnet | mpt-1-32
- torch.copysign(gain(weight, m).to(dtype), weight.to(dtype))
+ torch.copysign(torch.ones_like(weight), weight).to(dtype)

gain rounded to bf16 | subnet | mpt-1-32
- gain(weight, m).to(dtype)
+ gain(weight, m).bfloat16().to(dtype)

sign of zero | binarize | mpt-1-1
- torch.copysign(x.new_ones(()), x+0)
+ torch.where(x>0, 1., -1.).to(x)

derivative of the sign not cut | binarize | bnn-1-1
- 2*(1-x.clip(-1,1).abs())
+ 2*(1-x.abs())

where the clipped surrogate ends | binarize | clipped
- (x.abs()<=1)
+ (x.abs()<=2)

how steep EDE begins | binarize | ede
- ede(x, 0.1*100**p)
+ ede(x, 100**(p-1)/5)

height of EDE | binarize | ede
- max(1, 1/t)*t
+ t

how pointed ExSTE becomes | binarize | exste
- exste(x, 10**(2.8*p-2))
+ exste(x, 10**(2*p-2))

power of ReSTE | binarize | reste
- reste(x, 1+2*p)
+ reste(x, 1+p)

ReSTE near 0 | binarize | reste
- 0.1 ** (1/o-1), curve
+ 0.1 ** (1/o-1)/o, curve

skips from the first nonlinearity only | models | skips
- x = carried = added(x, carried)
+ x,carried = added(x, carried),x if carried is None else carried

skips past the pools | models | skips
- carried = layer(carried)
+ carried = None

channels not repeated | models | skips
- or x.shape[1]%carried.shape[1]:
+ or x.shape[1]!=carried.shape[1]:

surrogates that know of no progress | train | ede
- set_progress(run.model, progress)
+ set_progress(run.model, 0.0)

straight through beyond one | subnet | cycles learned
- d_weight *= gain(weight, mask) * (weight.abs() <= 1)
+ d_weight *= gain(weight, mask)

scale of the first scores | models | mpt-1-32
- ((2*u-1)/np.prod(shape[1:])**0.5)
+ ((2*u-1)*(3/np.prod(shape[1:]))**.5)

fan of the weights | models | dense
- 2/np.prod(shape[1:])/(scale_fan or 1)
+ 2/shape[0]/(scale_fan or 1)

scale of the kept fan | models | scaled
- /(scale_fan or 1))**0.5
+ *(scale_fan or 1))**0.5

fraction of the kept fan | experiment | scaled
- c.scale_fan and 1-c.sparsity
+ c.scale_fan and c.sparsity

scale of constant weights | models | signed
- z = np.where(z<0, -1.0, 1.0)
+ z = np.where(z<0, -1.0, 1.0)/2**.5

sign of constant weights | models | signed
- z = np.where(z<0, -1.0, 1.0)
+ z = np.where(z<0, 1.0, -1.0)

weights of another draw | models | dense
- stream(seed, name, 'weight',
+ stream(seed+1, name, 'weight',

momentum of SGD | train | sgd
- torch.optim.SGD(params, momentum=momentum,
+ torch.optim.SGD(params, momentum=0.0,

weight decay of SGD | train | sgd
- torch.optim.SGD(params, momentum=momentum, **given)
+ torch.optim.SGD(params, momentum=momentum, **given | dict(weight_decay=0.0))

momentum of Adam | train | adam
- (momentum,0.999)
+ (.9,.999)

second moment of Adam | train | adam
- (momentum,0.999)
+ (momentum,.99)

weight decay of Adam | train | adam
- (momentum,0.999), **given)
+ (momentum,0.999), **given | dict(weight_decay=0.0))

weight decay apart from the gradient | train | adam
- torch.optim.Adam(
+ torch.optim.AdamW(

label smoothing | train | smoothing warmup
- , label_smoothing=label_smoothing)\n    if
+ )\n    if

cosine | train | dense
- return lr*(1+math.cos(math.pi*(progress-warmup)/(1-warmup)))/2
+ return lr*(1-(progress-warmup)/(1-warmup))

cosine one step ahead | train | dense
- (run.epoch + run.step / run.steps) / cfg.epochs
+ (run.epoch + (run.step + 1) / run.steps) / cfg.epochs

warmup | train | smoothing warmup
- return lr*progress/warmup
+ return lr

cosine after the warmup | train | smoothing warmup
- (progress-warmup)/(1-warmup)
+ progress

global as of each layer | mask | global
- if pick(SCOPES, scope, 'scope') == 'layer': return
+ if True: return

ramp | prune | global
- *(1-done)**3
+ *(1-done)**2

length of the ramp | prune | global
- min(10, cfg.epochs/2)
+ min(10, cfg.epochs)

number of removed weights | mask | plain
- return int(Fraction(str(sparsity))*n)
+ return min(n-1, -int(-Fraction(str(sparsity))*n//1))

sparsities of the cycles | prune | imp
- round(1-(1-sparsity)**(cycle/cycles), 12)
+ round(sparsity*cycle/cycles, 12)

pruned at once, not after each batch | prune | mini-batch
- if cfg.mini_batch else 1
+ if False else 1

what came back competes again | subnet | imp-reinit
- .masked_fill(~found[k].fixed, -1)
+

pruned by the sign | subnet | imp
- v.detach().abs().masked_fill
+ v.detach().masked_fill

weights not drawn again | prune | imp-reinit
- subnet.init, draw=cycle)
+ subnet.init, draw=0)

other weights drawn again | prune | signed cycles
- subnet.init, draw=cycle)
+ draw=cycle)

batch normalisation not rewound | prune | cycles learned
- v.copy_(start["model"][name])
+ "running" in name or v.copy_(start["model"][name])

optimiser not rewound | prune | imp
- opt.load_state_dict(deepcopy(start['optimizer']))
+ pass

rewound before the epoch | train | rewind
- == (0, cfg.rewind_epoch, 0):
+ == (0, 0, 0):

scores rewound, too | prune | imp-score
- return own_state(model) | weights
+ return {k: v for k, v in model.state_dict().items() if "fixed" not in k} | weights

last part of a batch | data | dense
- n // size if training else
+ -(-n // size) if training else

order of the images | data | dense
- stream(seed, 'order', epoch)
+ stream(seed, 'order', 0)

another split | data | learned
- stream(seed, 'validation')
+ stream(0, 'validation')

order of the cycles | train | imp
- number = run.cycle * cfg.epochs + run.epoch
+ number = run.epoch

normalisation | data | dense
- ((x-mean)/std)
+ (x/std-mean)

mirrored upside down | data | augmentation
- x.flip(-1), x)
+ x.flip(-2), x)

always mirrored | data | augmentation
- mirrored.bool()
+ (mirrored + 1).bool()

shifted by another width | train | shift
- where = cfg.seed, number, run.step, cfg.shift
+ where = cfg.seed, number, run.step, 0

shift | data | augmentation
- places = 2 * shift + 1
+ places = 2 * shift

evaluated as in training | train | learned
-     model.eval()\n    with
+     with

mean in the place of the largest | models | bnn-1-32
- yield f'{name}_pool', nn.MaxPool2d(2)
+ yield f'{name}_pool', nn.AvgPool2d(2)

binarised with all bits | experiment | binarised
- used_weight(m.weight, m.weight!=0, 1)
+ used_weight(m.weight, m.weight!=0, 32)

test in the place of validation | experiment | imp-reinit
- (parts.val, parts.test))\n
+ (parts.test, parts.val))\n

precision | train | bf16 dense
- enabled=precision=='bf16'
+ enabled=False
"""
MUTANTS = [
    Mutant(*(part.replace(r"\n", "\n") for part in parts))
    for parts in re.findall(r"(.+) \| (.+) \| (.+)\n- (.+)\n\+ ?(.*)\n", BREAKS)
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
