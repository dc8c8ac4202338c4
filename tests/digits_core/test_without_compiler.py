"""The replacements for torch's compiler, in separate processes, because a process imports torch only once."""

import subprocess
import sys

import pytest

TRAINED = """
import sys
import torch
import digits_core.training.train
import digits_core.data.augment
from digits_core.without_compiler import StandIn
model = torch.nn.Linear(3, 1)
for kind in (torch.optim.SGD, torch.optim.AdamW):
    optimizer = kind(model.parameters(), lr=0.1)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
assert isinstance(sys.modules["torch._dynamo"], StandIn)
"""

COMPILED = """
twice = torch.compile(lambda values: values * 2, backend="eager")
assert twice(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
import torch._dynamo.config
from torch._dynamo.utils import is_compile_supported
assert not isinstance(sys.modules["torch._dynamo"], StandIn)
assert torch._dynamo.utils.is_compile_supported is is_compile_supported
optimizer.step()
"""


@pytest.mark.parametrize("first", ["", "import torch\n"])
def test_training_leaves_the_compiler_out_and_who_compiles_gets_it(first):
    code = first + TRAINED + (COMPILED if first else "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
