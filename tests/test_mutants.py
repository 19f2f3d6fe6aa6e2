"The golden numbers notice small breaks of the mathematics (here six; all: python tests/mutants.py)"

import pytest
from mutants import MUTANTS, QUICK, found, noticed


@pytest.mark.parametrize("mutant", QUICK, ids=[o.name for o in QUICK])
def test_noticed(mutant):
    assert noticed(mutant), f"no golden case notices {mutant.name!r}: make the cases stronger"


@pytest.mark.parametrize("mutant", MUTANTS, ids=[o.name for o in MUTANTS])
def test_old_text_is_there(mutant):
    found(mutant)
