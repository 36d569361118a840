"""``SummaryWriter`` with PyTorch's arguments; tensors become arrays, and tensorboardX writes the files."""

from __future__ import annotations

from typing import Any

from ...errors import require_extra
from ...tensor import Tensor

__all__ = ["SummaryWriter"]


def _plain(value: Any) -> Any:
    """Our tensors, also within lists and dicts, as arrays."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype.name in ("bfloat16", "float16") else value).numpy()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)([_plain(part) for part in value])
    return value


class SummaryWriter:
    """Writes scalars, histograms, images, figures, texts and more to ``log_dir``, for TensorBoard to show.

    Args:
        log_dir: the folder; ``runs/<time>_<host><comment>`` if None.
        comment: appended to that name.
        purge_step: after a crash, what TensorBoard has seen from this step on is dropped.
        max_queue, flush_secs: how many entries wait, and how long, before they are written.
        filename_suffix: appended to the files' names.
    Tensors, arrays, numbers and matplotlib's figures are accepted wherever PyTorch accepts them.
    Raises: MissingExtra, one line with the install command, where tensorboardX is not installed.
    """

    def __init__(
        self, log_dir: Any = None, comment: str = "", purge_step: int | None = None, max_queue: int = 10,
        flush_secs: int = 120, filename_suffix: str = "",
    ):  # fmt: skip
        library = require_extra("tensorboardX", "tensorboard")
        self._writer: Any = library.SummaryWriter(
            None if log_dir is None else str(log_dir), comment=comment, purge_step=purge_step, max_queue=max_queue,
            flush_secs=flush_secs, filename_suffix=filename_suffix,
        )  # fmt: skip
        self.log_dir: str = self._writer.logdir
        self.purge_step, self.max_queue, self.flush_secs = purge_step, max_queue, flush_secs
        self.filename_suffix = filename_suffix

    def get_logdir(self) -> str:
        """The folder that is written to."""
        return self.log_dir

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, walltime: float | None = None,
        new_style: bool = False, double_precision: bool = False,
    ) -> None:  # fmt: skip
        """A number of a step. Raises ValueError for ``double_precision``: scalars are written as float32."""
        if double_precision:
            raise ValueError("add_scalar: double_precision=True is not supported; scalars are written as float32.")
        self._writer.add_scalar(tag, _plain(scalar_value), global_step, walltime)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: dict[str, Any], global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Several numbers, shown in one plot."""
        self._writer.add_scalars(main_tag, _plain(tag_scalar_dict), global_step, walltime)

    def add_histogram(
        self, tag: str, values: Any, global_step: int | None = None, bins: Any = "tensorflow",
        walltime: float | None = None, max_bins: int | None = None,
    ) -> None:  # fmt: skip
        """How the values of a tensor are distributed."""
        self._writer.add_histogram(tag, _plain(values), global_step, bins, walltime, max_bins)

    def add_histogram_raw(
        self, tag: str, min: float, max: float, num: int, sum: float, sum_squares: float, bucket_limits: Any,
        bucket_counts: Any, global_step: int | None = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """A histogram that was made already."""
        self._writer.add_histogram_raw(
            tag, min, max, num, sum, sum_squares, _plain(bucket_limits), _plain(bucket_counts), global_step, walltime
        )

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int | None = None, walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:  # fmt: skip
        """An image: floats in [0, 1] or uint8, its dimensions named by ``dataformats``."""
        self._writer.add_image(tag, _plain(img_tensor), global_step, walltime, dataformats)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: int | None = None, walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:  # fmt: skip
        """A batch of images, side by side."""
        self._writer.add_images(tag, _plain(img_tensor), global_step, walltime, dataformats)

    def add_image_with_boxes(
        self, tag: str, img_tensor: Any, box_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, rescale: float = 1, dataformats: str = "CHW", labels: list[str] | None = None,
    ) -> None:  # fmt: skip
        """An image with rectangles, each ``(x0, y0, x1, y1)``, drawn into it."""
        self._writer.add_image_with_boxes(
            tag, _plain(img_tensor), _plain(box_tensor), global_step, walltime, dataformats, labels, rescale=rescale
        )

    def add_figure(
        self, tag: str, figure: Any, global_step: int | None = None, close: bool = True, walltime: float | None = None
    ) -> None:
        """A figure of matplotlib, or several; closed afterwards if ``close``."""
        self._writer.add_figure(tag, figure, global_step, close, walltime)

    def add_video(
        self, tag: str, vid_tensor: Any, global_step: int | None = None, fps: float = 4, walltime: float | None = None
    ) -> None:
        """A video (n, t, c, h, w); needs moviepy."""
        self._writer.add_video(tag, _plain(vid_tensor), global_step, fps, walltime)

    def add_audio(
        self, tag: str, snd_tensor: Any, global_step: int | None = None, sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """A sound, its samples in [-1, 1]; needs soundfile."""
        self._writer.add_audio(tag, _plain(snd_tensor), global_step, sample_rate, walltime)

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """A text, in Markdown."""
        self._writer.add_text(tag, text_string, global_step, walltime)

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True
    ) -> None:
        """Refused: raises ValueError. PyTorch writes the graph of a TorchScript trace, which there is none of here."""
        raise ValueError("add_graph is not supported: there are no TorchScript traces. onnx.export writes a graph.")

    def add_embedding(
        self, mat: Any, metadata: Any = None, label_img: Any = None, global_step: int | None = None,
        tag: str = "default", metadata_header: Any = None,
    ) -> None:  # fmt: skip
        """Points (n, d) with a label, and an image, each, for the projector."""
        self._writer.add_embedding(_plain(mat), _plain(metadata), _plain(label_img), global_step, tag, metadata_header)

    def add_pr_curve(
        self, tag: str, labels: Any, predictions: Any, global_step: int | None = None, num_thresholds: int = 127,
        weights: Any = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Precision over recall, of predicted probabilities of a class."""
        self._writer.add_pr_curve(
            tag, _plain(labels), _plain(predictions), global_step, num_thresholds, _plain(weights), walltime
        )

    def add_pr_curve_raw(
        self, tag: str, true_positive_counts: Any, false_positive_counts: Any, true_negative_counts: Any,
        false_negative_counts: Any, precision: Any, recall: Any, global_step: int | None = None,
        num_thresholds: int = 127, weights: Any = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """A curve that was made already."""
        counts = (true_positive_counts, false_positive_counts, true_negative_counts, false_negative_counts)
        self._writer.add_pr_curve_raw(
            tag, *map(_plain, counts), _plain(precision), _plain(recall), global_step, num_thresholds,
            _plain(weights), walltime,
        )  # fmt: skip

    def add_custom_scalars(self, layout: dict[str, Any]) -> None:
        """How scalars are put together in plots."""
        self._writer.add_custom_scalars(layout)

    def add_custom_scalars_multilinechart(
        self, tags: list[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Scalars in one plot."""
        self._writer.add_custom_scalars_multilinechart(tags, category, title)

    def add_custom_scalars_marginchart(
        self, tags: list[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """A scalar between two others."""
        self._writer.add_custom_scalars_marginchart(tags, category, title)

    def add_mesh(
        self, tag: str, vertices: Any, colors: Any = None, faces: Any = None, config_dict: Any = None,
        global_step: int | None = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Points in space, or a surface."""
        self._writer.add_mesh(tag, _plain(vertices), _plain(colors), _plain(faces), config_dict, global_step, walltime)

    def add_hparams(
        self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any], hparam_domain_discrete: Any = None,
        run_name: str | None = None, global_step: int | None = None,
    ) -> None:  # fmt: skip
        """The settings of a run and what they led to. Raises ValueError for ``hparam_domain_discrete``."""
        if hparam_domain_discrete is not None:
            raise ValueError("add_hparams: hparam_domain_discrete is not supported.")
        self._writer.add_hparams(_plain(hparam_dict), _plain(metric_dict), run_name, global_step)

    def flush(self) -> None:
        """Write what waits."""
        self._writer.flush()

    def close(self) -> None:
        """Write what waits, and close the files."""
        self._writer.close()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
