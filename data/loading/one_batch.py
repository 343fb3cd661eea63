"""OneBatchLoader: the first batch of a training set, again and again."""

from data.loading.stream import Batch, TrainLoader


class OneBatchLoader(TrainLoader):
    """The stream of a run that has to learn one batch by heart, to show that it can learn at all.

    Every batch is the first one that a `TrainLoader` of the same arguments hands out; with several
    micro-batches to a step, all of them are that one.
    """

    _first: Batch | None = None

    def __next__(self) -> Batch:
        """Return the batch, which is read once."""
        if self._first is None:
            super().seek(0)
            self._first = super().__next__()
            self.close()
        return self._first

    def seek(self, position: int) -> None:
        """Stay: the batch is the same at every position."""
