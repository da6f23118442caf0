import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitbox_tf.config import LossConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.problems import Problems
from unitbox_tf.train import callbacks, examples, fit, pipeline
from unitbox_tf.train.state import State
from unitbox_tf.train.steps import CheckedStep


class Logs(keras.callbacks.Callback):
    """Keeps the logs of the last epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.logs = dict(logs)


# In batches of 2: one, two with a smaller last one, two, three with a smaller last one.
@pytest.mark.parametrize(
    ("count", "reduction"),
    [
        (1, "mean"),
        (3, "sum"),
        *(pytest.param(n, "mean", marks=pytest.mark.slow) for n in (4, 5)),
    ],
)
def test_the_parts_of_the_validation_loss_add_up_to_it(
    tiny_config, small_model, tmp_path, count, reduction
):
    weights = {"confidence": 0.5, "distances": 3.0}
    config = dataclasses.replace(
        tiny_config,
        loss=LossConfig(
            reduction=reduction,
            confidence_weight=weights["confidence"],
            distance_weight=weights["distances"],
        ),
        train=dataclasses.replace(tiny_config.train, steps_per_epoch=1, epochs=1),
    )
    given = [synthetic.draw(number) for number in range(count)]
    broken = dataclasses.replace(given[0], name="broken", image=b"no image")
    problems = Problems()
    shown = examples.training(given, config, problems=problems)
    judged = examples.validation([given[0], broken, *given[1:]], config, problems=problems)
    assert len(judged.watched) == count
    assert [problem.where for problem in problems.found] == ["broken"]
    fit.compile_model(small_model, config, False)
    begun = State(tmp_path, small_model, config.train, CheckedStep(small_model))
    batches, validation, _ = fit._batches(small_model, config, shown, judged, begun, problems)
    assert int(validation.cardinality()) == -(-count // 2)
    logs = Logs()
    # Two epochs: Keras learns the length of a data set when it has seen its end.
    small_model.fit(
        batches(),
        validation_data=validation,
        shuffle=False,
        steps_per_epoch=1,
        epochs=2,
        callbacks=[callbacks.WeighByImages(count, 2), logs],
        verbose=0,
    )
    parts = sum(weight * logs.logs[f"val_{name}_loss"] for name, weight in weights.items())
    assert parts == pytest.approx(logs.logs["val_loss"], rel=1e-5)
    # And each is what a batch gives by itself, weighed by its images.
    means, sizes = [], []
    for images, heatmaps, pixel_weights in validation:
        reported = small_model.test_on_batch(images, heatmaps, pixel_weights, return_dict=True)
        means.append([reported[f"{name}_loss"] for name in weights])
        sizes.append(len(images))
    for name, expected in zip(weights, np.average(means, axis=0, weights=sizes), strict=True):
        assert logs.logs[f"val_{name}_loss"] == pytest.approx(expected, rel=1e-4)


def test_an_image_that_vanishes_later_leaves_the_number_of_batches(tiny_config, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(synthetic.draw(0).image)
    given = [dataclasses.replace(synthetic.draw(0), image=file), synthetic.draw(1)]
    dataset = pipeline.validation_dataset(
        given, tiny_config.data, size=64, labels=pipeline.Labels(2), batch_size=1
    )
    assert len(list(dataset)) == 2
    file.unlink()
    (images, heatmaps, _), _ = list(dataset)
    assert not heatmaps["confidence"].numpy().any()
    assert images[0, 0, 0].numpy().tolist() == [0, 0, 0]


def rows(*values):
    return [{"val_ap50": value, "val_ap75": value} for value in values]


@pytest.mark.parametrize(
    ("values", "frozen", "waited"),
    [
        ((), 0, 0),
        ((0.5,), 0, 0),
        ((0.5, 0.4, 0.3), 0, 2),
        ((0.5, 0.5), 0, 1),  # as good is not better
        ((0.5, 0.4, 0.6), 0, 0),
        ((0.0, 0.0, 0.0), 0, 0),  # nothing was found yet
        ((0.0, 0.1, 0.0), 0, 1),
        ((0.5, 0.4, 0.3), 2, 1),
        ((0.5, 0.4, 0.3), 3, 0),
        ((0.5, 0.4, 0.3), 9, 0),
    ],
)
def test_epochs_count_that_were_not_better(values, frozen, waited):
    assert callbacks.epochs_waited(rows(*values), "summary", frozen) == waited


@settings(max_examples=30)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=1, max_size=9),
    patience=st.integers(1, 4),
)
def test_training_stops_in_the_epoch_that_ends_the_patience_wherever_it_was_resumed(
    scores, patience
):
    """The history alone decides, so that a resumed run stops where an uninterrupted one does."""
    best = max(scores)
    since = len(scores) - 1 - scores.index(best)
    assert callbacks.StopEarly(patience, rows(*scores), "summary").reached == (
        best > 0 and since >= patience
    )
    assert not callbacks.StopEarly(None, rows(*scores), "summary").reached


def test_a_run_without_progress_stops_early_and_goes_on_with_more_patience(
    whole, eager, monkeypatch, caplog
):
    caplog.set_level("INFO")

    class Judge(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs.update({"val_ap50": 0.5 - 0.1 * epoch, "val_ap75": 0.5})

    monkeypatch.setattr(fit, "_callbacks", lambda *_: [Judge()])

    def train(resume=None, **changes):
        changes = {"epochs": 4, "steps_per_epoch": 1, **changes}
        return fit.fit(
            dataclasses.replace(whole, train=dataclasses.replace(whole.train, **changes)),
            train=[synthetic.draw(0)],
            validation=[synthetic.draw(1)],
            resume=resume,
        )

    first = train(patience=1)
    assert (len(first.history), first.stopped_early, first.interrupted) == (2, True, False)
    message = "Stopped early: no better val_ap50 and val_ap75 in the last 1 epochs"
    assert message in caplog.text
    again = train(patience=1, resume=first.folder)
    assert (again.history, again.stopped_early) == (first.history, True)
    more = train(patience=3, resume=first.folder)
    assert (len(more.history), more.stopped_early) == (4, False)
