"What holds for every mask, every score and every config"

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mplt.config import Config, config
from mplt.errors import UserError
from mplt.experiment import config_hash
from mplt.mask import global_masks, removed, topk_mask
from mplt.subnet import METHODS
from mplt.ticket import decode, encode, line, rounded, set_line

sparsities = st.integers(0, 999).map(lambda i: i / 1000)
scores = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=9),
    elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]),
)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=4, max_side=12)))
def test_codec(mask):
    assert (decode(*encode(mask), mask.sum(), mask.shape) == mask).all()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.sampled_from([0, 0.01, 0.5, 1])), min_size=1, max_size=4
    ),
    st.integers(1, 90),
)
def test_codec_of_dead_inputs(groups, outputs):
    "Inputs that keep nothing, as the black borders of digits, or all, or some: so many of each"
    likely = np.concatenate([np.full(n, p) for n, p in groups])
    mask = np.random.RandomState(0).rand(outputs, len(likely)) < likely
    assert (decode(*encode(mask), mask.sum(), mask.shape) == mask).all()


@given(st.binary(min_size=0, max_size=40).filter(lambda b: len(b) % 4 == 0), st.integers(0, 180))
def test_codec_survives_any_code(raw, kept):
    try:
        m = decode(np.frombuffer(raw, np.uint32), np.zeros(0, np.uint16), kept, (6, 30))
    except (ValueError, AssertionError):
        return
    assert m.sum() == kept


floats = st.floats(-3, 3, width=32) | st.sampled_from([0.0, 1.0, 1e-30, -1e6, 1e6])
four = st.lists(st.tuples(*[floats] * 4), min_size=1, max_size=9)


@given(four, st.sampled_from(["mpt-1-1", "mpt-1-32"]), st.booleans())
def test_batch_normalisation_is_right_or_kept(numbers, method, learned):
    "Whatever it has learned: rounded, a channel's scale and shift are off by 1/32 at most"
    mean, var, gamma, beta = torch.tensor(numbers).T
    norm = torch.nn.BatchNorm1d(len(mean), affine=learned).eval()
    norm.running_mean, norm.running_var = mean, var.abs()
    if learned:
        norm.weight.data, norm.bias.data = gamma, beta
    if not (found := rounded(norm, METHODS[method])):
        return
    sizes = gamma.abs().double() if learned else torch.ones(len(mean)).double()
    x = mean + torch.tensor([[0], [1]]) * var.abs().sqrt()
    exact, (a, b) = norm.double()(x.double()), line(**found)
    wrong = (a * x + b - exact).abs() / sizes.clip(min=sizes.mean())
    assert wrong.isfinite().all() and (wrong <= 2 / 32 + 1e-4).all()
    set_line(norm, a, b)
    assert torch.allclose(norm(x.double()), a * x + b, rtol=1e-3, atol=1e-3 * float(sizes.mean()))


@given(scores, sparsities)
def test_topk(s, sparsity):
    m = topk_mask(torch.from_numpy(s), sparsity).numpy()
    thousandths = round(sparsity * 1000)
    assert (~m).sum() == s.size * thousandths // 1000 == removed(s.size, sparsity)
    if m.any() and not m.all():
        assert np.abs(s)[m].min() >= np.abs(s)[~m].max()


@given(scores, scores, sparsities)
def test_global_topk(a, b, sparsity):
    m = global_masks(dict(a=torch.from_numpy(a), b=torch.from_numpy(b)), sparsity)
    assert sum((~o).sum().item() for o in m.values()) == removed(a.size + b.size, sparsity)
    kept, gone = (
        np.concatenate(
            [np.abs(s)[(m[k].numpy() if keep else ~m[k].numpy())] for k, s in (("a", a), ("b", b))]
        )
        for keep in (True, False)
    )
    if len(kept) and len(gone):
        assert kept.min() >= gone.max()


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)
names = st.one_of(st.sampled_from(list(Config.__dataclass_fields__)), st.text(max_size=9))


@settings(max_examples=500)
@given(st.dictionaries(names, anything, max_size=4))
def test_config_is_right_or_refused(given):
    try:
        c = config(**given)
    except UserError as e:
        assert str(e) and "\n" not in str(e)
        return
    assert 0 <= c.sparsity < 1 and c.epochs > 0 and c.batch_size > 0 and c.lr > 0
    assert config(**c.__dict__) == c and config_hash(config(**c.__dict__)) == config_hash(c)
