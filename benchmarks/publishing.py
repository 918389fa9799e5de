"""Publishing and loading on this machine, against the plain clients on the same files.

    python benchmarks/publishing.py --folder DATASET [--repeats 3]

A Hub-compatible server on the loopback interface (that of the tests) takes both sides, in turn, each time as a new
repository and with an empty cache. Push: ``ule-build --push-to-hub`` beside ``HfApi.upload_folder`` of the same files.
Load: ``ule_datasets.load(REPO)`` and ``load_dataset(REPO)`` beside ``load_dataset`` of what ``upload_folder`` left. All
in processes of their own, timed inside, without their start and imports.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import finish, interleaved, seconds_of, table

from ule_datasets.dataset.manifest import Manifest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hub import TOKENS, WRITE_TOKEN, HubServer

TIMED = """
import sys, time
{prepare}
started = time.perf_counter()
{work}
print("SECONDS", time.perf_counter() - started)
"""
PUSH_OURS = (
    "from pathlib import Path; from builders import RECIPES; from ule_datasets.base.progress import Reporter\n"
    "from ule_datasets.packaging.publication import *; from ule_datasets.packaging.publish import publish\n"
    "import huggingface_hub.hf_api",
    "plan = plan_publication(RECIPES[{name!r}], Path({folder!r}), PublishOptions(repo_id={ours!r}))\n"
    "publish(plan, Reporter(silent=True))",
)
PUSH_PLAIN = (
    "from huggingface_hub import HfApi; import huggingface_hub.hf_api; api = HfApi()",
    "api.create_repo({plain!r}, repo_type='dataset')\n"
    "api.upload_folder(repo_id={plain!r}, folder_path={folder!r}, repo_type='dataset', "
    "ignore_patterns=['.local.json', 'verification/*'])",
)
LOAD_PLAIN = ("import datasets; datasets.disable_progress_bars()", "datasets.load_dataset({plain!r}, split='train')")
LOAD_OURS = ("import datasets; datasets.disable_progress_bars()", "datasets.load_dataset({ours!r}, split='train')")
LOAD_DIRECT = (
    "import ule_datasets.dataset.loading, huggingface_hub.hf_api, pyarrow.parquet",
    "ule_datasets.load({ours!r})",
)


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True, help="a built dataset of the catalogue")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    manifest = Manifest.read(chosen.folder)
    with HubServer(tokens=TOKENS) as hub, tempfile.TemporaryDirectory() as temporary:
        homes = Path(temporary)
        names = {"name": manifest.name, "folder": str(chosen.folder.resolve())}

        def side(step: tuple[str, str]) -> Callable[[], float]:
            counter = iter(range(1_000))

            def run() -> float:
                number = next(counter)
                repos = {"ours": f"tester/ours-{number}", "plain": f"tester/plain-{number}"}
                code = TIMED.format(prepare=step[0], work=step[1].format(**names, **repos))
                home = homes / f"home-{number}"
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    env=hub.environment(token=WRITE_TOKEN, home=home),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                shutil.rmtree(home, ignore_errors=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                return float(done.stdout.rsplit("SECONDS", 1)[1])

            return run

        sides = {
            "push, ours": side(PUSH_OURS),
            "push, upload_folder": side(PUSH_PLAIN),
            "load_dataset of ours": side(LOAD_OURS),
            "load_dataset of upload_folder's": side(LOAD_PLAIN),
            "ule_datasets.load": side(LOAD_DIRECT),
        }
        timings = interleaved(sides, chosen.repeats)
        assert hub.unexpected == [], hub.unexpected
    size = sum(file.size for file in manifest.files) / 2**20
    push, plain = timings["push, ours"].median, timings["push, upload_folder"].median
    ours, theirs = timings["load_dataset of ours"].median, timings["load_dataset of upload_folder's"].median
    direct = timings["ule_datasets.load"].median
    table(
        f"{manifest.name}: {len(manifest.files)} files, {size:.0f} MiB, loopback",
        ["", "times the plain client"],
        [
            ["push, checks and reading back included", f"{push / plain:.2f}"],
            ["load_dataset", f"{ours / theirs:.2f}"],
            ["ule_datasets.load, against load_dataset", f"{direct / theirs:.2f}"],
        ],
    )
    print(json.dumps({name: round(timing.median, 3) for name, timing in timings.items()}))
    finish(chosen.json, {"dataset": manifest.name, "mebibytes": size, "seconds": seconds_of(timings)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
