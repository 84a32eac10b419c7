"""A small Kaggle on loopback, which the real, unmodified client talks to.

    with FakeKaggle("tiny", archive=zip_bytes) as kaggle:
        kaggle.fail("storage", Fault("cut", after=1000))
        subprocess.run(["kbdenoise", "fetch", "tiny"], env=kaggle.environment(home))
        assert kaggle.count("CreateSubmission") == 1

The client reaches it as a plain HTTP proxy (`HTTP_PROXY`) with `KAGGLE_API_ENVIRONMENT=LOCALHOST`,
so that hosts may have any name; nothing is ever passed on to another machine.
"""

from tests.fake_kaggle.faults import Fault
from tests.fake_kaggle.server import FakeKaggle, Request
from tests.fake_kaggle.state import KEY, TOKEN, USER, Contest, Submission

__all__ = ["KEY", "TOKEN", "USER", "Contest", "FakeKaggle", "Fault", "Request", "Submission"]
