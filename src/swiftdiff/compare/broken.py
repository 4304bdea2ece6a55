"""Makes a broken system, which serves every LoRA at half its scale: tables of quality must catch it.

``python -m swiftdiff.compare.broken results/broken`` writes its config, ``wrong-lora-scale.toml``, and its
store. It is compared as any system is, with ``--force``, because it has other adapters than the baseline.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from swiftdiff.config import AdapterStoreConfig, ServingConfig
from swiftdiff.files import write_whole
from swiftdiff.models.registry import EMBEDDED, shapes_root

_FACTOR = 0.5
_UP = (".lora_B.", ".lora_up.")  # the upper matrix, as diffusers and as kohya call it


def write_broken_system(folder: Path) -> Path:
    """Write the config and its store into a folder, and return the config's path.

    Raises:
        StorageError: The config cannot be written.
    """
    store, family = folder / "store", shapes_root()
    shutil.copytree(family / "controlnets", store / "controlnets", dirs_exist_ok=True)
    (store / "loras").mkdir(exist_ok=True)
    for file in sorted((family / "loras").glob("*.safetensors")):
        weights = load_file(file)
        halved = {
            name: value * _FACTOR if any(up in name for up in _UP) else value
            for name, value in weights.items()
        }
        save_file(halved, store / "loras" / file.name)
    config = ServingConfig(
        name="wrong-lora-scale",
        engine="diffusers",
        model=EMBEDDED,
        adapters=AdapterStoreConfig(url="store"),
    )
    path = folder / f"{config.name}.toml"
    write_whole(path, config.to_toml().encode())
    return path


if __name__ == "__main__":
    print(write_broken_system(Path(sys.argv[1])))
