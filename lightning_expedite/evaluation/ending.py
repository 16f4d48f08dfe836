"""How a run ends when it is told to."""

import signal
import threading

from pytorch_lightning import Callback, LightningModule, Trainer


class EndAtOnce(Callback):
    """Lets SIGTERM end a process at once, as it ends other programs, once Lightning has set its own handler.

    That one has all processes exchange something, which never ends where a single one got the signal; `predict` does
    not heed it, and `test` ends with status 0. Finished images are in the journal, so that nothing is left to do.
    Lightning puts the handler of before back when it is done.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the signal's default action."""
        self._set()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the signal's default action."""
        self._set()

    def _set(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python lets no other set handlers
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
