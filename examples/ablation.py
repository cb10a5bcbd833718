"""The paper's two-by-two study in small: {discrete, continuous} tokens x {raster, random} order.

Command:   python examples/ablation.py --out runs/ablation --steps 600
Shows:     that tokens, order and head are three independent choices; the four models differ in three names of one file,
           examples/configs/study.toml. It is what `fluid study` does, in a few lines of Python
Runtime:   grows with --steps; a variant that is finished is not trained again, one that was interrupted continues
Leaves:    report.md, report.json (one row per model), findings.json, plots and comparison.png in the output folder,
           each run below runs/
Expected:  losses fall for all four. With this little training nothing follows about the paper's findings. Cross-entropy
           and noise-prediction losses have different units and stand apart
"""

import argparse
from pathlib import Path

import attrs

from fluid_core.study.grid import study_cells
from fluid_core.study.run import run_study
from fluid_core.study.settings import StudyBudget, load_study

CONFIG = Path(__file__).parent / "configs" / "study.toml"


def main() -> None:
    """Train, measure and compare the models of the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--steps", type=int, help="training steps of each model, instead of the file's budget")
    parser.add_argument("--jobs", type=int, default=1, help="models trained at a time")
    parser.add_argument("--study", type=Path, default=CONFIG, help="another file")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="changes to it, such as seeds=[0,1]")
    arguments = parser.parse_args()

    study = load_study(arguments.study, arguments.changes)
    if arguments.steps is not None:
        training = study_cells(study)[0].config.training
        assert training is not None
        study = attrs.evolve(study, budget=StudyBudget(images=arguments.steps * training.batch_size))
    outcome = run_study(study, arguments.out, num_jobs=arguments.jobs, note=print, echo=True)
    if outcome.failed:
        raise SystemExit("\n".join(f"{one.name} failed, see {one.log}:\n{one.last_lines}" for one in outcome.failed))
    print(f"Look at {arguments.out / 'report.md'} and {arguments.out / 'comparison.png'}.")


if __name__ == "__main__":
    main()
