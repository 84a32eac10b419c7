"""What a run that cannot end well says: what went wrong, and how to go on."""

from kbdenoise.errors import SettingsError
from kbdenoise.runs.folds import whole_of
from kbdenoise.training.session import Session


def no_step(session: Session) -> SettingsError:
    """A time limit that is over before the first step, or after going back to before it."""
    now, limit = session.now, session.config.length.time_limit
    why = f"{now.elapsed_s:.1f} s went on preparing"
    if now.went_back:
        why = "training diverged and went back to where it began"
    kept_s = session.time_limit_s - session.end_s
    return SettingsError(
        f"--time-limit {limit} is too short to train anything: {why}, and {kept_s:.1f} s are kept "
        "for the last validation and save",
        hint=f"give it a longer one: {_resume(session)} --time-limit ...",
    )


def _resume(session: Session) -> str:
    return f"kbdenoise train --resume {whole_of(session.run).name}"
