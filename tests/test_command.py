"The command, as the shell sees it"
import json
import subprocess
import sys

import pandas as pd
import pytest

RUN = 'run --method mpt-1-32 --dataset mnist5k --arch_type conv2 --width 0.1 --sparsity 0.8 --bn learned --epochs 2 --limit 100 --batch_size 20'


def mplt(args, cwd): return subprocess.run([sys.executable, '-c', 'import sys; from mplt.command import main; sys.exit(main())', *args.split()], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    from conftest import REPO
    monkeypatch.setenv('MPLT_DATA', str(REPO / 'data'))


def test_run_leaves_its_results_and_repeats_them(tmp_path):
    for out in 'a', 'b':
        p = mplt(f'{RUN} --out {out}', tmp_path)
        assert p.returncode == 0 and 'test accuracy' in p.stdout and 'epoch 2:' in p.stderr, p.stderr
    assert {f.name for f in (tmp_path / 'a').iterdir()} == {'config.json', 'state.pt', 'curves.csv', 'layers.csv', 'timings.csv', 'summary.csv', 'ticket.safetensors', 'lock'}
    for f in 'curves.csv', 'layers.csv', 'summary.csv', 'ticket.safetensors', 'config.json': assert (tmp_path / 'a' / f).read_bytes() == (tmp_path / 'b' / f).read_bytes(), f
    row = pd.read_csv(tmp_path / 'a/summary.csv').iloc[0]
    assert row.weights_kept == sum(n - int(n * .8) for n in (6 * 9, 6 * 6 * 9, 6 * 14 * 14 * 26, 26 * 26, 260))
    assert len(pd.read_csv(tmp_path / 'a/curves.csv')) == 2 and json.loads((tmp_path / 'a/config.json').read_text())['config']['bn'] == 'learned'


@pytest.mark.parametrize('args, says', [
    ('run --sparsity 80', "sparsity 80.0 is out of range"), ('run --sparsity x', "sparsity 'x' is not valid"), ('run --method mpt-1-33', "did you mean 'mpt-1-32'"),
    ('run --epochs -1', 'epochs -1 is out of range'), ('run --batch_size 1000 --limit 50', 'batch_size 1000 does not fit'), ('run --device tpu', "unknown device 'tpu'"),
    ('run --sparcity .5', "unknown flag '--sparcity': did you mean '--sparsity'?"), ('run --out file/x', 'file/x cannot be written'), ('data fetch cifar', "did you mean 'cifar10'"),
    ('data verify mnist --root .', 'is missing'), ('run --method dense --sparsity .5', 'removes no weights'), ('run --method mpt-1-1 --bn none', "bn 'none' does not fit"),
])
def test_mistakes(args, says, tmp_path):
    (tmp_path / 'file').write_text('')
    p = mplt(args, tmp_path)
    assert p.returncode == 2 and says in p.stderr and len(p.stderr.strip().splitlines()) == 1, p.stderr
    assert [f.name for f in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('module', 'errors data binarize mask models subnet train ticket experiment report pipeline engine export command'.split())
def test_modules_stand_alone(module): subprocess.run([sys.executable, '-c', f'import mplt.{module}'], check=True)
