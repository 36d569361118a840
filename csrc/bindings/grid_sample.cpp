// grid_sample of images, bilinear and nearest, and its gradients.
#include "../kernels/grid_sample.h"

#include <limits>

#include "../core/fastcall.h"
#include "lines.h"

namespace tg {
namespace {

// Volumes and cubic interpolation are composed of smaller ops.
bool served(const View& x, py::handle mode) {
  return x.ndim == 4 && PyUnicode_Check(mode.ptr()) && PyUnicode_CompareWithASCIIString(mode.ptr(), "bicubic") != 0;
}

py::object declined() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

GridShape grid_shape(const View& x, const View& grid, py::handle mode, py::handle padding, py::handle align) {
  const char* op = "grid_sample";
  if (x.ndim != 4) throw py::value_error("grid_sample: this kernel takes (n, c, height, width)");
  if (grid.ndim != 4) throw py::value_error("grid_sample: the grid must be (n, height, width, 2)");
  require_shape(op, "grid", grid, {x.shape[0], grid.shape[1], grid.shape[2], 2});
  require_dtype(op, "grid", grid, x.dtype);
  if (x.shape[2] < 1 || x.shape[3] < 1) throw py::value_error("grid_sample: the input's sizes may not be zero");
  if (x.shape[2] > std::numeric_limits<int32_t>::max() / x.shape[3])
    throw py::value_error("grid_sample: the images are too large");
  const std::string how = py::cast<std::string>(mode), beyond = py::cast<std::string>(padding);
  if (how != "bilinear" && how != "nearest") throw py::value_error("grid_sample: this kernel has no mode '" + how + "'");
  return {x.shape[0], x.shape[1], x.shape[2], x.shape[3], grid.shape[1] * grid.shape[2], how == "nearest", flag(align),
          beyond == "zeros" ? Beyond::zeros : beyond == "border" ? Beyond::border : Beyond::reflection};
}

}  // namespace

FAST_BINDING(grid_sample, 5, "x", "grid", "mode", "padding", "align_corners") {
  const View x = view(a[0], "grid_sample"), grid = view(a[1], "grid_sample: grid");
  if (!served(x, a[2])) return declined();
  const GridShape s = grid_shape(x, grid, a[2], a[3], a[4]);
  const DType compute = float_compute("grid_sample", x);
  const py::object source = ready(x, compute), places = ready(grid, compute);
  py::object out = empty(compute, Shape{s.n, s.c, grid.shape[1], grid.shape[2]});
  visit_real("grid_sample", compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *from = data_of<T>(source), *at = data_of<T>(places);
    T* to = data_of<T>(out);
    if (s.n * s.c * s.count > 0) launch(s.n * s.c * s.count, [=] { grid_sample(s, from, at, to); });
  });
  return ready_as(out, x.dtype);
}

FAST_BINDING(grid_sample_backward, 7, "g", "x", "grid", "mode", "padding", "align_corners", "needs") {
  const View g = view(a[0], "grid_sample_backward"), x = view(a[1], "grid_sample"), grid = view(a[2], "grid_sample: grid");
  if (!served(x, a[3])) return declined();
  const GridShape s = grid_shape(x, grid, a[3], a[4], a[5]);
  require_shape("grid_sample_backward", "g", g, {s.n, s.c, grid.shape[1], grid.shape[2]});
  require_dtype("grid_sample_backward", "g", g, x.dtype);
  const auto needs = py::cast<std::pair<bool, bool>>(a[6]);
  const DType compute = float_compute("grid_sample", x);
  const py::object up = ready(g, compute), source = ready(x, compute), places = ready(grid, compute);
  py::object dx = py::none(), dgrid = py::none();
  if (needs.first) dx = empty(compute, x.shape_vector());
  if (needs.second) dgrid = empty(compute, grid.shape_vector());
  visit_real("grid_sample", compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const T *from = data_of<T>(up), *image = data_of<T>(source), *at = data_of<T>(places);
    T *to_x = needs.first ? data_of<T>(dx) : nullptr, *to_grid = needs.second ? data_of<T>(dgrid) : nullptr;
    const Index n = x.size(), m = grid.size();
    launch(s.n * s.c * s.count, [=] {
      if (s.n * s.c * s.count > 0) return grid_sample_backward(s, from, image, at, to_x, to_grid);
      if (to_x) std::fill(to_x, to_x + n, T(0));
      if (to_grid) std::fill(to_grid, to_grid + m, T(0));
    });
  });
  return py::make_tuple(needs.first ? ready_as(dx, x.dtype) : dx, needs.second ? ready_as(dgrid, x.dtype) : dgrid);
}

TG_BINDINGS(grid_sample) {
  add_fast(m, fast_grid_sample);
  add_fast(m, fast_grid_sample_backward);
}

}  // namespace tg
