"""A short storm, and a reader beside a writer that is killed again and again; `make chaos` runs the long ones."""

import pytest
from chaos.storm import VICTIMS, storm
from chaos.views import read_beside_kills


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_under_fire_loses_nothing_and_decides_the_same(tmp_path):
    search, damage = storm(tmp_path, kills=2, seed=5, trials=4, epochs=6, victims=("worker", "driver"), pause=0.2)
    assert sum(damage.kills.values()) == 2
    assert set(damage.kills) <= set(VICTIMS)
    assert damage.lost == []
    assert damage.different == []
    assert (damage.torn, damage.hung) == (0, 0)
    assert damage.most_repeated <= 2  # one epoch in each of the two slots
    assert damage.reports >= 2
    assert search.process.returncode == 0


def test_readers_see_whole_tables_that_never_shrink(tmp_path):
    found = read_beside_kills(tmp_path, kills=25, seed=1)
    assert found.kills >= 25
    assert found.broken == []
    assert found.reads > 25
    assert found.rows > 0
