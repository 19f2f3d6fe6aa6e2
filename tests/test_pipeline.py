"The pipeline on a tiny suite: it runs, it rests, it repeats itself to the byte, and it knows what is stale. In order."
import json
import os
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from conftest import REPO

from mplt.experiment import MODULES, code_digests, run
from mplt.pipeline import notebook_digest, suite_configs, suite_params

COLUMNS = 'suite dataset arch width method bn scope sparsity seed epochs val_accuracy test_accuracy weights_total weights_kept ticket_bytes config_hash'.split()
ALL = ['code', 'figures', 'run@fc1-imp', 'run@fc1-mpt-1-32', 'run@lenet5-dense', 'tables']


def ran(p): return sorted(re.findall(r"Running stage '([^']+)'", p.stdout))


def snapshot(repo):
    return {str(f.relative_to(repo.results)): f.read_bytes() for f in sorted(repo.results.rglob('*')) if f.is_file() and f.name != 'timings.csv'}


def edit(repo, file, old, new):
    text = (repo.path / file).read_text()
    assert text.count(old) == 1
    (repo.path / file).write_text(text.replace(old, new))


def test_first_repro(repo):
    assert ran(repo.sh('dvc', 'repro')) == ALL
    found = {f for f in snapshot(repo)}
    wanted = {'code.json', 'summary.csv', 'metrics.json', 'runs/fc1-mpt-1-32/run.ipynb'}
    wanted |= {f'tables/T{i}.{s}' for i in (1, 2) for s in ('md', 'csv')} | {f'figures/{i}.{s}' for i in ('F1', 'F3', 'F5', 'F6', 'S1', 'S2') for s in ('svg', 'png')}
    assert not wanted - found
    assert len([f for f in found if f.startswith('runs/fc1-mpt-1-32/tickets/fc1-mpt-1-32-s0.8-seed0-')]) == 1
    assert not [f for f in found if 'dense' in f and f.endswith('.safetensors')]
    summary = pd.read_csv(repo.results / 'summary.csv')
    assert list(summary) == COLUMNS and len(summary) == 6
    assert summary.weights_kept[summary.sparsity == .8].item() == sum(n - n * 8 // 10 for n in (784 * 30, 30 * 10, 10 * 10))
    assert len(pd.read_csv(repo.results / 'timings.csv')) == 6


def test_no_machine_in_results(repo):
    for name, text in snapshot(repo).items():
        if not name.endswith('.png'): assert str(repo.path).encode() not in text, name


def test_no_machine_in_notebooks():
    "Saved outputs hold no warnings (which come with a path of the machine) and no home or working folder"
    for f in (*REPO.glob('nbs/*.ipynb'), *REPO.glob('nbs/pipeline/*.ipynb')):
        for output in (o for c in json.loads(f.read_text())['cells'] for o in c.get('outputs', [])):
            assert output.get('name') != 'stderr', f'{f.name}: {output}'
            assert not re.search(r'(?<![\w.])/(home|root|work|tmp|Users)/', json.dumps({k: v for k, v in output.get('data', {}).items() if k != 'image/png'}) + str(output.get('text', ''))), f.name


def test_second_repro_computes_nothing(repo):
    p = repo.sh('dvc', 'repro')
    assert not ran(p) and 'up to date' in p.stdout


def test_byte_stable(repo):
    before = snapshot(repo)
    shutil.rmtree(repo.path / 'runs')
    assert ran(repo.sh('dvc', 'repro', '-f')) == ALL
    after = snapshot(repo)
    assert before.keys() == after.keys()
    assert [k for k in before if before[k] != after[k]] == []


def test_words_make_nothing_stale(repo):
    edit(repo, 'mplt/mask.py', '"Where to search, in turn"', '"In turn, where to search" # a comment')
    edit(repo, 'nbs/pipeline/run.ipynb', 'How they learned', 'How did they learn')
    assert ran(repo.sh('dvc', 'repro')) == ['code']


def test_changed_report_leaves_runs_alone(repo):
    edit(repo, 'mplt/report.py', "dpi=130", "dpi=131")
    assert ran(repo.sh('dvc', 'repro')) == ['code', 'figures', 'tables']


def test_changed_module_makes_runs_stale(repo):
    before = pd.read_csv(repo.results / 'summary.csv')
    edit(repo, 'mplt/subnet.py', "z = stream(seed, name, 'weight',", "z = stream(seed+100, name, 'weight',")
    assert ran(repo.sh('dvc', 'repro')) == ALL
    after = pd.read_csv(repo.results / 'summary.csv')
    assert (after.config_hash == before.config_hash).all() and (after.test_accuracy != before.test_accuracy).any()


def test_changed_parameter_makes_its_run_stale(repo):
    edit(repo, 'suites/tiny/params.yaml', 'seed: [0, 1]', 'seed: [0, 2]')
    assert ran(repo.sh('dvc', 'repro')) == ['code', 'figures', 'run@lenet5-dense', 'tables']


def test_bad_parameter_stops_with_a_sentence(repo):
    before = snapshot(repo)
    for old, new, says in ('sparsity: [0.5, 0.8]', 'sparsity: [0.5, 1.0]', 'sparsity 1.0 is out of range'), ('arch: fc1, width: 0.1, method: mpt-1-32', 'arch: fc11, width: 0.1, method: mpt-1-32', "did you mean 'fc1'?"), ('batch_size: 30', 'batch_size: 0', 'batch_size 0'), \
            ('{dataset: mnist5k, arch: lenet5, method: dense, seed: [0, 2]}', '7', 'runs.lenet5-dense of suite tiny is 7'), ('limit: 120', 'limmit: 120', "did you mean 'limit'?"), \
            ('{dataset: mnist5k, arch: lenet5, ', '{arch: lenet5, ', 'among them one dataset'):
        edit(repo, 'suites/tiny/params.yaml', old, new)
        p = repo.sh('mplt', 'check', 'tiny', ok=False)
        assert p.returncode == 2 and says in p.stderr and len(p.stderr.splitlines()) == 1
        if 'runs.' not in p.stderr:  # there DVC itself complains first
            p = repo.sh('dvc', 'repro', ok=False)
            assert p.returncode and says in p.stderr and 'Traceback' not in p.stderr and ran(p) == ['code']
        edit(repo, 'suites/tiny/params.yaml', new, old)
    after = snapshot(repo)
    assert after.keys() - {'code.json'} == before.keys() - {'code.json'} and all(after[k] == before[k] for k in after)


def test_two_suites_of_one_name(repo):
    shutil.copytree(repo.path / 'suites/tiny', repo.path / 'suites/copy', symlinks=True)
    p = repo.sh('mplt', 'check', 'tiny', ok=False)
    assert p.returncode == 2 and "are called 'tiny'" in p.stderr and 'Traceback' not in p.stderr
    shutil.rmtree(repo.path / 'suites/copy')


def test_dvc_tells_the_story(repo):
    assert 'mnist5k lenet5 x1 dense plain' in repo.sh('dvc', 'metrics', 'show', '--json').stdout
    assert 'seed' in repo.sh('dvc', 'params', 'diff').stdout
    assert 'run@fc1-mpt-1-32' in repo.sh('dvc', 'dag').stdout


def papermill(repo, notebook, *args):
    return repo.sh('papermill', '--engine', 'mplt', '-k', 'python3', *args, str(notebook), str(repo.path / 'out.ipynb'), cwd=repo.path, ok=False)


def test_unknown_parameter(repo):
    p = papermill(repo, 'nbs/pipeline/run.ipynb', '-p', 'kye', 'x')
    assert p.returncode == 2 and "unknown parameter 'kye': did you mean 'key'?" in p.stderr and 'Traceback' not in p.stderr


def test_missing_tag(repo):
    nb = json.loads((repo.path / 'nbs/pipeline/tables.ipynb').read_text())
    for c in nb['cells']: c['metadata'].pop('tags', None)
    (repo.path / 'untagged.ipynb').write_text(json.dumps(nb))
    p = papermill(repo, 'untagged.ipynb', '-p', 'suite', 'tiny')
    assert p.returncode == 2 and "no cell tagged 'parameters'" in p.stderr and 'Traceback' not in p.stderr


def test_accept(repo):
    "Code that gives the same results is taken over without computing them all; other code is not"
    repo.sh('dvc', 'repro')
    before = snapshot(repo)
    edit(repo, 'mplt/mask.py', 'center,margin = len(sample)-keep//61,3*int', 'center,margin = len(sample)-keep//61,4*int')
    repo.sh('mplt', 'accept', 'tiny', 'fc1-mpt-1-32')
    p = repo.sh('dvc', 'repro')
    assert not ran(p) and 'up to date' in p.stdout
    after = snapshot(repo)
    assert before.keys() == after.keys() and [k for k in before if before[k] != after[k]] == ['code.json']
    edit(repo, 'suites/tiny/params.yaml', 'runs:', 'runs:\n  later: {dataset: mnist5k, arch: fc1, method: random, sparsity: 0.5}')
    p = repo.sh('mplt', 'accept', 'tiny', 'later', ok=False)
    assert p.returncode == 2 and 'later of suite tiny has no results to compare with' in p.stderr
    edit(repo, 'mplt/mask.py', 'center,margin = len(sample)-keep//61,4*int', 'center,margin = len(sample)-keep//61,5*int')
    repo.sh('mplt', 'accept', 'tiny', 'fc1-mpt-1-32')  # what is not computed yet does not stand in the way
    assert ran(repo.sh('dvc', 'repro', '--dry', '-s', 'run@lenet5-dense')) == [] != ran(repo.sh('dvc', 'repro', '--dry', '-s', 'run@later'))
    edit(repo, 'suites/tiny/params.yaml', '  later: {dataset: mnist5k, arch: fc1, method: random, sparsity: 0.5}\n', '')
    edit(repo, 'mplt/subnet.py', "u = stream(seed, name, 'scores')", "u = stream(seed+1, name, 'scores')")
    p = repo.sh('mplt', 'accept', 'tiny', 'fc1-mpt-1-32', ok=False)
    assert p.returncode == 2 and 'comes out differently' in p.stderr and ran(repo.sh('dvc', 'repro', '--dry')) != []
    edit(repo, 'suites/tiny/params.yaml', 'seed: [0, 2]', 'seed: [0, 3]')
    p = repo.sh('mplt', 'accept', 'tiny', 'fc1-mpt-1-32', ok=False)
    assert p.returncode == 2 and 'run@lenet5-dense of suite tiny has more than changed code' in p.stderr and 'params.yaml' in p.stderr, p.stderr


SUITES = {yaml.safe_load(f.read_text())['suite']: f.parent for f in (REPO / 'params.yaml', *REPO.glob('suites/*/params.yaml')) if (f.parent / 'dvc.lock').exists()}


@pytest.mark.parametrize('suite', SUITES)
def test_lock_is_fresh(suite):
    "What dvc.lock says a suite was computed with is what is here: code and parameters (the quick suite's results are the machine's, the others' are committed)"
    lock, params = (yaml.safe_load((SUITES[suite] / f).read_text()) for f in ('dvc.lock', 'params.yaml'))
    now = code_digests((*MODULES, 'pipeline', 'report', 'engine')) | {f'notebook_{k}': notebook_digest(REPO / f'nbs/pipeline/{k}.ipynb') for k in ('run', 'tables', 'figures')}
    stages = {'code', 'tables', 'figures', *(f'run@{k}' for k in params['runs'])}
    assert lock['stages'].keys() == stages
    for name, stage in lock['stages'].items():
        if name == 'code': continue
        if name.startswith('run@'): assert set(MODULES) <= set(stage['params'][f"{params['root']}results/{suite}/code.json"])
        file = f"{params['root']}results/{suite}/code.json"
        assert stage['params'][file] == {k: now[k] for k in stage['params'][file]}, name
        if name.startswith('run@'):
            key = name.removeprefix('run@')
            assert stage['params']['params.yaml'] == {'defaults': params['defaults'], f'runs.{key}': params['runs'][key]}
            if suite != 'quick': assert len(pd.read_csv(REPO / f'results/{suite}/runs/{key}/summary.csv')) == len(suite_configs(suite, key))


def test_paper_suite(repo):
    "Every cell of the published settings is sound, and DVC knows what it would do"
    place = repo.path / 'suites/paper'
    repo.sh('mplt', 'check', 'paper', cwd=place)
    for name in 'cifar10', 'imagenet':
        (repo.path / 'data' / name).mkdir()
        (repo.path / 'data' / name / 'stand-in').write_text('')
    said = repo.sh('dvc', 'repro', '--dry', '-s', 'run@conv2-mpt-1-32', 'run@imagenet-mpt-1-32', cwd=place).stdout
    for name in 'cifar10', 'imagenet': shutil.rmtree(repo.path / 'data' / name)
    assert said.count('papermill --engine mplt') == 2


@pytest.mark.skipif(not os.environ.get('MPLT_DATA_MIRROR'), reason='MPLT_DATA_MIRROR names no folder with CIFAR-10')
def test_smallest_cell_of_the_paper(tmp_path):
    "One epoch of it instead of 250, on all of CIFAR-10"
    c = min((c for k in suite_params('paper')['runs'] for c in suite_configs('paper', k)), key=lambda c: (c.arch, c.width, c.seed, c.sparsity))
    assert (c.arch, c.width, c.epochs, c.optimizer, c.lr, c.bn) == ('conv2', .25, 250, 'sgd', .1, 'none')
    row = run(replace(c, epochs=1), tmp_path / 'run')
    assert row['test_accuracy'] > .15 and row['epochs'] == 1
