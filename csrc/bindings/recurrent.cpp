// rnn_sequence and rnn_sequence_backward.
#include "../kernels/recurrent.h"

#include <pybind11/stl.h>

#include <limits>
#include <optional>

#include "gemm_arrays.h"
#include "lines.h"

namespace tg {
namespace {

using Sizes = std::optional<std::vector<Index>>;

Cell cell_named(const std::string& mode) {
  if (mode == "LSTM") return Cell::lstm;
  if (mode == "GRU") return Cell::gru;
  if (mode == "RNN_TANH") return Cell::tanh;
  if (mode == "RNN_RELU") return Cell::relu;
  bad_value("rnn_sequence: mode is '" + mode + "'; valid: 'LSTM', 'GRU', 'RNN_TANH', 'RNN_RELU'");
}

// The checked inputs of a call, contiguous and in the dtype that is computed in.
struct RecurrentCall {
  const char* what;
  DType stored, compute;
  Cell cell;
  bool reverse, packed;
  Index inputs, hidden, state, gates, batch;
  std::vector<Index> sizes, first{0};
  py::object x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr;

  RecurrentCall(const char* name, const std::string& mode, bool backwards, const Sizes& given, py::handle gx, py::handle gh,
       py::handle gc, py::handle gw_ih, py::handle gw_hh, py::handle gb_ih, py::handle gb_hh, py::handle gw_hr)
      : what(name), cell(cell_named(mode)), reverse(backwards), packed(given.has_value()) {
    const View vx = view(gx, "rnn_sequence: x"), vi = view(gw_ih, "rnn_sequence: w_ih"), vh = view(gw_hh, "rnn_sequence: w_hh");
    stored = vx.dtype;
    compute = float_compute(what, vx);
    if (vx.ndim != (packed ? 2 : 3))
      bad_value(std::string(what) + ": x has shape " + to_string(vx.shape_vector()) +
                (packed ? ", expected (rows, inputs)" : ", expected (steps, batch, inputs)"));
    if (vi.ndim != 2 || vh.ndim != 2)
      bad_value(std::string(what) + ": the weights must be matrices, got " + to_string(vi.shape_vector()) + " and " +
                to_string(vh.shape_vector()));
    gates = cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
    inputs = vx.shape[vx.ndim - 1];
    hidden = vi.shape[0] / gates;
    state = vh.shape[1];
    if (hidden < 1 || state < 1) bad_value(std::string(what) + ": the state is empty");
    read_sizes(vx, given);
    const Index most = std::max({rows(), gates * hidden, inputs, state});
    if (most >= std::numeric_limits<int>::max()) bad_value(std::string(what) + ": an array has a side of 2^31 or more");
    x = take(gx, "x", vx.shape_vector());
    h0 = take(gh, "h0", {batch, state});
    c0 = take(cell == Cell::lstm ? gc : py::none(), "c0", {batch, hidden});
    w_ih = take(gw_ih, "w_ih", {gates * hidden, inputs});
    w_hh = take(gw_hh, "w_hh", {gates * hidden, state});
    b_ih = take(gb_ih, "b_ih", {gates * hidden});
    b_hh = take(gb_hh, "b_hh", {gates * hidden});
    w_hr = take(gw_hr, "w_hr", {state, hidden});
    const bool projects = !w_hr.is_none();
    if ((projects && cell != Cell::lstm) || (!projects && state != hidden))
      bad_value(std::string(what) + ": w_hh takes a state of width " + std::to_string(state) + ", there are " +
                std::to_string(hidden) + " units" + (projects ? "; only LSTM projects" : ""));
  }

  Index rows() const { return first.back(); }
  Index work() const { return rows() * gates * hidden * (inputs + state); }
  Shape out_shape() const {
    return packed ? Shape{rows(), state} : Shape{static_cast<Index>(sizes.size()), batch, state};
  }

  // The array in the dtype computed in, contiguous; None stays.
  py::object take(py::handle given, const char* name, const Shape& shape) const {
    if (given.is_none()) return py::none();
    const View v = view(given, name);
    require_shape(what, name, v, shape);
    tg::require_dtype(what, name, v, stored);
    return ready(v, compute);
  }

  template <class T>
  Recurrent<T> as() const {
    Recurrent<T> r;
    r.cell = cell, r.reverse = reverse;
    r.inputs = inputs, r.hidden = hidden, r.state = state;
    r.sizes = sizes, r.first = first;
    r.x = pointer<T>(x), r.h0 = pointer<T>(h0), r.c0 = pointer<T>(c0);
    r.w_ih = pointer<T>(w_ih), r.w_hh = pointer<T>(w_hh), r.w_hr = pointer<T>(w_hr);
    r.b_ih = pointer<T>(b_ih), r.b_hh = pointer<T>(b_hh);
    return r;
  }

  template <class T>
  static T* pointer(const py::object& array) {
    return array.is_none() ? nullptr : data_of<T>(array);
  }

 private:
  void read_sizes(const View& vx, const Sizes& given) {
    if (packed) {
      sizes = *given;
      for (std::size_t t = 0; t < sizes.size(); ++t)
        if (sizes[t] < 0 || sizes[t] > vx.shape[0] || (t > 0 && sizes[t] > sizes[t - 1]))
          bad_value(std::string(what) + ": the sizes of steps must fall, from at most the number of rows");
    } else {
      sizes.assign(static_cast<std::size_t>(vx.shape[0]), vx.shape[1]);
    }
    for (Index n : sizes)
      if (__builtin_add_overflow(first.back(), n, &n)) throw std::bad_alloc();
      else first.push_back(n);
    if (packed && rows() != vx.shape[0])
      bad_value(std::string(what) + ": the sizes of steps sum to " + std::to_string(rows()) + ", x has " +
                std::to_string(vx.shape[0]) + " rows");
    batch = packed ? (sizes.empty() ? 0 : sizes[0]) : vx.shape[1];
  }
};

py::tuple rnn_sequence(py::handle x, py::handle h0, py::handle c0, py::handle w_ih, py::handle w_hh, py::handle b_ih,
                       py::handle b_hh, py::handle w_hr, const std::string& mode, bool reverse, const Sizes& sizes,
                       bool keep) {
  const RecurrentCall call("rnn_sequence", mode, reverse, sizes, x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr);
  const bool lstm = call.cell == Cell::lstm, keeps = keep && (lstm || call.cell == Cell::gru);
  const py::object out = empty(call.compute, call.out_shape()), h_n = zeros(call.compute, {call.batch, call.state});
  py::object c_n = py::none(), gates = py::none(), cells = py::none();
  if (lstm) c_n = empty(call.compute, {call.batch, call.hidden});
  if (keeps) {
    gates = empty(call.compute, {call.rows(), call.gates * call.hidden});
    cells = empty(call.compute, {call.rows(), call.hidden});
  }
  visit_real("rnn_sequence", call.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    const Recurrent<T> layer = call.as<T>();
    const Kept<T> kept{RecurrentCall::pointer<T>(gates), RecurrentCall::pointer<T>(cells)};
    T *to = data_of<T>(out), *to_h = data_of<T>(h_n), *to_c = RecurrentCall::pointer<T>(c_n);
    if (layer.rows() > 0) launch(call.work(), [=] { recurrent(layer, to, to_h, to_c, kept); });
  });
  auto stored = [&](const py::object& made) { return made.is_none() ? made : narrowed(made, call.stored); };
  return py::make_tuple(stored(out), stored(h_n), stored(c_n), stored(gates), stored(cells));
}

// The gradient to out with rows at strides of its own.
template <class T>
RecurrentSeeds<T> seeds_of(const RecurrentCall& call, py::object& g_out, const py::object& g_h, const py::object& g_c) {
  RecurrentSeeds<T> seeds;
  seeds.h_n = RecurrentCall::pointer<T>(g_h), seeds.c_n = RecurrentCall::pointer<T>(g_c);
  seeds.packed = call.packed;
  if (g_out.is_none()) return seeds;
  Index strides[kMaxDims];
  View v = view(g_out);
  if (!element_strides(v, strides) || (strides[v.ndim - 1] != 1 && v.shape[v.ndim - 1] > 1)) {
    g_out = ready(v);
    v = view(g_out);
    element_strides(v, strides);
  }
  seeds.out = v.as<T>();
  seeds.g_row = strides[v.ndim - 2];
  seeds.g_step = call.packed ? 0 : strides[0];
  return seeds;
}

py::tuple rnn_sequence_backward(py::handle g_out, py::handle g_h, py::handle g_c, py::handle x, py::handle h0,
                                py::handle c0, py::handle w_ih, py::handle w_hh, py::handle b_ih, py::handle b_hh,
                                py::handle w_hr, py::handle out, py::handle gates, py::handle cells,
                                const std::string& mode, bool reverse, const Sizes& sizes, const std::vector<bool>& needs) {
  const char* what = "rnn_sequence_backward";
  const RecurrentCall call(what, mode, reverse, sizes, x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr);
  if (needs.size() != 8) bad_value(std::string(what) + ": needs must be 8 flags");
  const bool lstm = call.cell == Cell::lstm, keeps = lstm || call.cell == Cell::gru;
  if (keeps && (gates.is_none() || cells.is_none())) bad_value(std::string(what) + ": forward kept no gates");
  const py::object ready_out = call.take(out, "out", call.out_shape());
  const py::object ready_gates = call.take(gates, "gates", {call.rows(), call.gates * call.hidden});
  const py::object ready_cells = call.take(cells, "cells", {call.rows(), call.hidden});
  py::object seed = py::none();
  if (!g_out.is_none()) {
    const View v = view(g_out, "rnn_sequence_backward: g_out");
    require_shape(what, "g_out", v, call.out_shape());
    tg::require_dtype(what, "g_out", v, call.stored);
    seed = widened(g_out, "rnn_sequence_backward: g_out");
  }
  const py::object seed_h = call.take(g_h, "g_h", {call.batch, call.state});
  const py::object seed_c = call.take(lstm ? g_c : py::none(), "g_c", {call.batch, call.hidden});
  const py::object* inputs[8] = {&call.x, &call.h0, &call.c0, &call.w_ih, &call.w_hh, &call.b_ih, &call.b_hh, &call.w_hr};
  py::object grads[8];
  for (std::size_t i = 0; i < 8; ++i) {
    const bool wanted = needs[i] && !inputs[i]->is_none();
    grads[i] = !wanted ? py::none()
               : call.rows() == 0 && i > 0 ? zeros(call.compute, shape_of(*inputs[i]))
                                           : empty(call.compute, shape_of(*inputs[i]));
  }
  visit_real(what, call.compute, [&](auto t) {
    using T = typename decltype(t)::value;
    auto at = [&](int i) { return RecurrentCall::pointer<T>(grads[i]); };
    const Recurrent<T> layer = call.as<T>();
    const RecurrentSeeds<T> seeds = seeds_of<T>(call, seed, seed_h, seed_c);
    const Kept<T> kept{RecurrentCall::pointer<T>(ready_gates), RecurrentCall::pointer<T>(ready_cells)};
    const RecurrentGrads<T> to{at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)};
    const T* from = data_of<T>(ready_out);
    if (layer.rows() > 0) launch(call.work(), [=] { recurrent_backward(layer, seeds, from, kept, to); });
  });
  py::tuple result(8);
  for (std::size_t i = 0; i < 8; ++i) result[i] = grads[i].is_none() ? grads[i] : narrowed(grads[i], call.stored);
  return result;
}

}  // namespace

TG_BINDINGS(recurrent) {
  using py::arg;
  m.def("rnn_sequence", &rnn_sequence, arg("x"), arg("h0"), arg("c0"), arg("w_ih"), arg("w_hh"), arg("b_ih"), arg("b_hh"),
        arg("w_hr"), py::kw_only(), arg("mode"), arg("reverse"), arg("sizes"), arg("keep"));
  m.def("rnn_sequence_backward", &rnn_sequence_backward, arg("g_out"), arg("g_h"), arg("g_c"), arg("x"), arg("h0"),
        arg("c0"), arg("w_ih"), arg("w_hh"), arg("b_ih"), arg("b_hh"), arg("w_hr"), arg("out"), arg("gates"), arg("cells"),
        py::kw_only(), arg("mode"), arg("reverse"), arg("sizes"), arg("needs"));
}

}  // namespace tg
