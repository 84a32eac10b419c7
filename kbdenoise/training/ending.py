"""What a run that cannot end well says: what went wrong, what is on the disk, how to go on."""

from kbdenoise.atomic import is_full
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.weights import read_card
from kbdenoise.runs.folds import resume_command, whole_of
from kbdenoise.training.session import Session


def unsaved(session: Session, error: DataError, *, stopped_by: str, saved_step: int) -> DataError:
    """A disk that refuses the last save; `saved_step` is that of the state which is on it."""
    now, saved = session.now, [f"the state of step {saved_step:,}"]
    if now.step == read_card(session.run.last).metadata.get("step"):
        saved.insert(0, f"the last weights (step {now.step:,})")
    if now.best_step:
        saved.insert(0, f"the best weights (step {now.best_step:,})")
    cure = "free some space" if is_full(error) else error.hint
    return DataError(
        f"{error.message}; training came to step {now.step:,} (ended by: {stopped_by}), saved are "
        + ", ".join(saved),
        hint=f"{cure}; then go on from step {saved_step:,}: {resume_command(session.run)}",
    )


def no_step(session: Session) -> SettingsError:
    """A time limit that is over before the first step, or after going back to before it."""
    now, limit = session.now, session.config.length.time_limit
    why = f"{now.elapsed_s:.1f} s went on preparing"
    if now.went_back:
        why = "training diverged and went back to where it began"
    kept_s = session.time_limit_s - session.end_s
    is_fold = whole_of(session.run) != session.run.path
    given = f"this fold's share of --time-limit, {limit}," if is_fold else f"--time-limit {limit}"
    best = f"; the best weights so far are in {session.run.best}" if now.best_step else ""
    return SettingsError(
        f"{given} is too short to train anything: {why}, and {kept_s:.1f} s are kept for the last "
        "validation and save",
        hint=f"give a longer one: {resume_command(session.run)} --time-limit ...{best}",
    )
