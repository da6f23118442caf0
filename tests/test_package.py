import subprocess
import sys

import unitbox_tf


def test_importing_the_package_does_not_import_tensorflow():
    code = (
        "import sys, unitbox_tf, unitbox_tf.config, unitbox_tf.datasets, unitbox_tf.cli;"
        "import unitbox_tf.evaluation.matching;"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_public_name_can_be_had():
    for name in unitbox_tf.__all__:
        assert getattr(unitbox_tf, name) is not None
    assert set(unitbox_tf.__all__) <= set(dir(unitbox_tf))
