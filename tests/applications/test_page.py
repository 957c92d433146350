"""The example application of docs/how-to/application.md runs and checks its answers."""

import importlib.util
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import keras
import pytest
from PIL import Image

from virtbed_workloads.contract import ApplicationError

PAGE = Path(__file__).parents[2] / "docs/how-to/application.md"
LEAVES = {"green": (20, 160, 40), "orange": (200, 90, 10), "grey": (90, 90, 90)}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the page's module, with an untrained model and three photographs next to it."""
    (code,) = re.findall(r"^```python\n(\"{3}.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "leaf_disease.py"
    path.write_text(code)
    specification = importlib.util.spec_from_file_location("leaf_disease", path)
    assert specification and specification.loader
    made = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "leaf_disease", made)
    specification.loader.exec_module(made)
    made.FILES.mkdir()
    model = keras.Sequential(
        [
            keras.Input((made.SIDE, made.SIDE, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(made.CLASSES), activation="softmax"),
        ]
    )
    model.save(made.FILES / "leafnet.keras")
    for name, colour in LEAVES.items():
        encoded = io.BytesIO()
        Image.new("RGB", (100, 80), colour).save(encoded, "JPEG")
        (made.FILES / f"{name}-1.jpg").write_bytes(encoded.getvalue())
    return made


def test_the_application_of_the_page_answers_and_is_checked(module: ModuleType) -> None:
    application = module.LeafNet()
    assert application.load().weights == "trained"
    requests = application.inputs()
    assert set(requests) == {f"{name}-1.jpg" for name in LEAVES}
    for request in requests.values():
        features = application.preprocess(request)
        assert features.shape == (1, module.SIDE, module.SIDE, 3)
        answer = application.postprocess(application.infer(features))
        predicted = application.describe(answer)
        assert predicted in module.CLASSES
        assert application.check(f"{predicted}-2.jpg", answer).right
        other = next(name for name in module.CLASSES if name != predicted)
        assert not application.check(f"{other}-2.jpg", answer).right
    with pytest.raises(ApplicationError, match="8 bytes found, a photograph needed"):
        application.preprocess(b"no image")
