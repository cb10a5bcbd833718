"""`fluid evaluate`: the protocols by which models are compared. Each command writes one JSON with every setting."""

import typer

from fluid_core.commands.evaluate_captions import captions
from fluid_core.commands.evaluate_clip_score import clip_score
from fluid_core.commands.evaluate_fid import fid
from fluid_core.commands.evaluate_geneval import geneval, geneval_judge
from fluid_core.commands.evaluate_loss import loss

evaluate_app = typer.Typer(
    name="evaluate", help="Measure a model by a protocol; the result is one JSON.", no_args_is_help=True
)
evaluate_app.command("loss")(loss)
evaluate_app.command("fid")(fid)
evaluate_app.command("clip-score")(clip_score)
evaluate_app.command("captions")(captions)
evaluate_app.command("geneval")(geneval)
evaluate_app.command("geneval-judge")(geneval_judge)
