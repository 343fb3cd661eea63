import torch

from data.images import ImageDataset
from data.loading.one_batch import OneBatchLoader
from data.loading.stream import TrainLoader
from tests.toys import fill


def test_every_batch_is_the_first_one_of_a_train_loader(tmp_path):
    images = ImageDataset(str(fill(tmp_path / "gt")), scale=2, lq_size=8)
    given = {"batch_size": 2, "seed": 3, "num_workers": 0}
    train, stream = TrainLoader(images, **given), OneBatchLoader(images, **given)
    first = next(train)
    for position in (0, 5):
        stream.seek(position)
        for _ in range(2):
            batch = next(stream)
            assert all(torch.equal(batch[name], first[name]) for name in ("lq", "gt"))
    assert not torch.equal(next(train)["lq"], first["lq"])
    for each in (train, stream):
        each.close()
