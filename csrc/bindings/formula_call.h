// One call of a Formula: its operands, the program that is meant for them, its results.
#pragma once

#include <Python.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../core/launch.h"
#include "../core/parallel.h"
#include "../kernels/formula_layout.h"
#include "../kernels/copy.h"
#include "formula_object.h"
#include "formula_source.h"
#include "formula_written.h"

namespace tg {
namespace formula {

// How results are reduced: sum, mean, and, along rows alone, amax, amin, logsumexp, vector_norm.
inline constexpr char kLetters[] = "smxnle";
inline constexpr Reduce kReduced[] = {Reduce::sum,  Reduce::mean,      Reduce::amax,
                                      Reduce::amin, Reduce::logsumexp, Reduce::norm2};

class Call {
 public:
  Call(FormulaObject* self, PyObject* const* args, std::size_t count, PyObject* out)
      : self_(self), count_(count), args_(count), key_(count + 8) {
    for (std::size_t i = 0; i < count; ++i) args_[i] = args[i];
    if (out && out != Py_None) read_out(out);
    read_args();
  }

  py::object run() {
    find_shape();
    check_rolls();
    check_given();
    if (!simple_ && given_.empty() && ndim_ > 1) find_order();
    const Program& program = find_program();
    const int inputs = static_cast<int>(count_), outputs = program.output_count();
    if (!given_.empty() && static_cast<int>(given_.size()) != outputs) {
      throw std::invalid_argument(name_of(self_) + ": out has " + std::to_string(given_.size()) + " arrays, the results are " + std::to_string(outputs));
    }
    Local<PyArrayObject*, 4> targets(static_cast<std::size_t>(outputs));
    std::vector<py::object> fresh;
    py::object single;
    bool defer = false;
    for (int i = 0; i < outputs; ++i) {
      if (!given_.empty()) {
        targets[i] = given_[i];
        const Overlap overlap = overlap_of(given_[i]);
        defer |= overlap == Overlap::Exact && outputs > 1;
        if (overlap != Overlap::Partial) continue;
      }
      py::object made = moved_ ? empty_as_it_lies(program.output_dtype(i)) : empty(program.output_dtype(i), shape_, ndim_);
      targets[i] = as_array(made.ptr());
      if (outputs == 1) single = std::move(made);
      else fresh.push_back(std::move(made));
    }
    Local<Number, 16> numbers(program.numbers().size());
    fill_numbers(program, numbers.data());
    over_operands(program, inputs + outputs, targets.data(), [&](const Operand* operands, int ndim, const Index* shape) {
      if (writing() && !defer && all_contiguous(program, operands, inputs, inputs + outputs)) {
        write_pieces(program, numbers.data(), operands, inputs + outputs, ndim, shape, {});
      } else if (writing()) {
        write(program, numbers.data(), operands, inputs + outputs, ndim, shape, [defer](const Written& call, Number* values) {
          formula::run(*call.program, values, call.operands.data(), call.ndim(), call.shape.data(), defer);
        });
      } else {
        MaybeRelease unlock(work_of(program, ndim, shape));
        formula::run(program, numbers.data(), operands, ndim, shape, defer);
      }
    });
    if (given_.empty()) return outputs == 1 ? std::move(single) : tuple_of(fresh);
    for (int i = 0; i < outputs; ++i) {
      if (targets[i] == given_[i]) continue;
      if (writing()) write_back(targets[i], given_[i]);
      else if (PyArray_CopyInto(given_[i], targets[i]) < 0) throw py::error_already_set();
    }
    return out_;
  }

  // Some results are stored, of others there are sums, or something of each row, or of columns. NotImplemented for rows that
  // are reduced only together, and for columns that are not summed so.
  py::object run_summing() {
    find_shape();
    check_rolls();
    if (!simple_ && ndim_ > 1) find_order();
    const Program& program = find_program();
    const int inputs = static_cast<int>(count_), outputs = program.output_count();
    const std::string given = py::cast<std::string>(py::handle(self_->sums)), sums = given.substr(0, given.find(':'));
    if (static_cast<int>(sums.size()) != outputs || !ndim_ || moved_)
      throw std::invalid_argument(name_of(self_) + ": sums are for results with dimensions, in C's order, one letter for each");
    Totals totals;
    Shape along;  // what rows are reduced to
    if (sums.size() < given.size()) {
      const std::size_t before = given.find('/');
      const int axes = given[sums.size() + 1] - '0', behind = before == std::string::npos ? 0 : given.back() - '0';
      const int kept = ndim_ - axes - behind;
      if (axes < 1 || behind < 0 || kept < 0) throw std::invalid_argument(name_of(self_) + ": rows have from 1 to 9 of the results' axes");
      totals.length = size_of_shape(axes, shape_ + kept);
      along.assign(shape_, shape_ + kept);
      if (given[sums.size() + 2] == 'k') along.resize(static_cast<std::size_t>(ndim_ - behind), 1);
      along.insert(along.end(), shape_ + ndim_ - behind, shape_ + ndim_);
      if (behind) totals.columns = size_of_shape(behind, shape_ + ndim_ - behind);
      for (std::size_t i = 0; i < sums.size() && !behind; ++i) {
        const char* found = std::strchr(kLetters, sums[i]);
        const Index item = size_of(program.output_dtype(static_cast<int>(i)));
        if (sums[i] && found && !takes_rows(kReduced[found - kLetters], totals.length, item)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
      }
    }
    std::vector<PyArrayObject*> targets(static_cast<std::size_t>(outputs), nullptr);
    std::vector<py::object> made;
    totals.of.resize(static_cast<std::size_t>(outputs));
    for (int i = 0; i < outputs; ++i) {
      const DType dtype = program.output_dtype(i);
      const char what = sums[static_cast<std::size_t>(i)];
      if (what == '.') {
        made.push_back(empty(dtype, shape_, ndim_));
        targets[static_cast<std::size_t>(i)] = as_array(made.back().ptr());
        continue;
      }
      const char* found = std::strchr(kLetters, what);
      if (!what || !found || (dtype != DType::Float32 && dtype != DType::Float64))
        throw std::invalid_argument(name_of(self_) + ": float32 and float64 are reduced, by the letters " + kLetters);
      const Reduce kind = kReduced[found - kLetters];
      const bool wide = dtype == DType::Float64;
      if (!totals.length && kind != Reduce::sum && kind != Reduce::mean)
        throw std::invalid_argument(name_of(self_) + ": of all elements there are a sum ('s') and a mean ('m')");
      made.push_back(empty(dtype, along));
      totals.of[static_cast<std::size_t>(i)] = {true, kind == Reduce::mean, wide, data_of<char>(made.back()), kind};
    }
    Local<Number, 16> numbers(program.numbers().size());
    fill_numbers(program, numbers.data());
    bool done = true;
    over_operands(program, inputs + outputs, targets.data(), [&](const Operand* operands, int ndim, const Index* shape) {
      done = !totals.columns || sums_columns(program, operands, ndim, shape, totals.rows());
      if (!done) return;
      if (writing()) return write_pieces(program, numbers.data(), operands, inputs + outputs, ndim, shape, totals);
      MaybeRelease unlock(work_of(program, ndim, shape));
      Summing(program, numbers.data(), operands, ndim, shape, totals).all();
    });
    if (!done) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    return outputs == 1 ? std::move(made[0]) : tuple_of(made);
  }

  // The sum of all elements of the result, or their mean, as a 0-d array; None for what is summed elsewhere: results
  // that are no float or double, or no array at all.
  py::object reduced(bool mean) {
    find_shape();
    check_rolls();
    const Program& program = find_program();
    const DType dtype = program.output_dtype(0);
    if (program.output_count() != 1 || !ndim_ || (dtype != DType::Float32 && dtype != DType::Float64)) return py::none();
    Local<Number, 16> numbers(program.numbers().size());
    fill_numbers(program, numbers.data());
    py::object made = empty(dtype, Shape{});
    char* target = data_of<char>(made);
    const auto store = [=](double total, Index n) {
      if (mean) total /= static_cast<double>(n);
      if (dtype == DType::Float64) *reinterpret_cast<double*>(target) = total;
      else *reinterpret_cast<float*>(target) = static_cast<float>(total);
    };
    const int inputs = static_cast<int>(count_);
    over_operands(program, inputs, nullptr, [&](const Operand* operands, int ndim, const Index* shape) {
      if (writing()) {
        write(program, numbers.data(), operands, inputs, ndim, shape, [store](const Written& call, Number* values) {
          store(formula::sum(*call.program, values, call.operands.data(), call.ndim(), call.shape.data()), call.size());
        });
        return;
      }
      MaybeRelease unlock(work_of(program, ndim, shape));
      store(formula::sum(program, numbers.data(), operands, ndim, shape), size_of_shape(ndim, shape));
    });
    return made;
  }

 private:
  enum class Overlap { None, Exact, Partial };

  static py::object tuple_of(const std::vector<py::object>& parts) {
    py::tuple all(parts.size());
    for (std::size_t i = 0; i < parts.size(); ++i) all[i] = parts[i];
    return std::move(all);
  }

  void read_out(PyObject* out) {
    out_ = py::reinterpret_borrow<py::object>(out);
    const bool several = PyTuple_Check(out);
    const Py_ssize_t count = several ? PyTuple_GET_SIZE(out) : 1;
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject* target = several ? PyTuple_GET_ITEM(out, i) : out;
      if (!PyArray_Check(target)) {
        throw py::type_error(name_of(self_) + ": out must be a numpy.ndarray or a tuple of them, got " + Py_TYPE(target)->tp_name);
      }
      given_.push_back(as_array(target));
    }
  }

  void read_args() {
    for (std::size_t i = 0; i < count_; ++i) {
      PyObject* x = args_[i];
      if (PyArray_Check(x)) {
        key_[i] = array_code(as_array(x));
      } else if (PyFloat_CheckExact(x)) {
        key_[i] = kPython | 2;
      } else if (PyLong_CheckExact(x)) {
        key_[i] = kPython | 1;
      } else if (PyBool_Check(x)) {
        key_[i] = kPython | 0;
      } else if (PyComplex_CheckExact(x)) {
        key_[i] = kPython | 3;
      } else if (PyArray_CheckScalar(x)) {
        converted_.push_back(py::reinterpret_steal<py::object>(PyArray_FromScalar(x, nullptr)));
        if (!converted_.back()) throw py::error_already_set();
        args_[i] = converted_.back().ptr();
        key_[i] = array_code(as_array(args_[i]));
      } else if (PyFloat_Check(x) || PyLong_Check(x) || PyComplex_Check(x)) {
        key_[i] = static_cast<unsigned char>(kPython | (PyFloat_Check(x) ? 2 : PyLong_Check(x) ? 1 : 3));
      } else {
        throw py::type_error(name_of(self_) + ": operand " + std::to_string(i) +
                             " must be a numpy.ndarray or a Python number, got " + Py_TYPE(x)->tp_name);
      }
    }
  }

  static unsigned char array_code(PyArrayObject* array) {
    return static_cast<unsigned char>(static_cast<unsigned char>(dtype_of(array)) | (PyArray_NDIM(array) ? 0 : kScalar));
  }
  bool varies(std::size_t i) const { return !(const_cast<Local<unsigned char, 24>&>(key_)[i] & (kScalar | kPython)); }

  // The common shape. `simple_` stays true while every array has it and lies contiguous.
  void find_shape() {
    for (std::size_t i = 0; i < count_; ++i) {
      if (!varies(i)) continue;
      PyArrayObject* array = as_array(args_[i]);
      const int ndim = PyArray_NDIM(array);
      const npy_intp* sizes = PyArray_SHAPE(array);
      simple_ &= PyArray_IS_C_CONTIGUOUS(array) && PyArray_ISALIGNED(array);
      if (ndim_ == 0) {
        ndim_ = ndim;
        for (int d = 0; d < ndim; ++d) shape_[d] = sizes[d];
        continue;
      }
      if (ndim == ndim_ && std::equal(sizes, sizes + ndim, shape_)) continue;
      simple_ = false;
      join_shape(sizes, ndim);
    }
  }

  void join_shape(const npy_intp* sizes, int ndim) {
    if (ndim > ndim_) {
      const int more = ndim - ndim_;
      for (int d = ndim_ - 1; d >= 0; --d) shape_[d + more] = shape_[d];
      for (int d = 0; d < more; ++d) shape_[d] = 1;
      ndim_ = ndim;
    }
    const int missing = ndim_ - ndim;
    for (int d = 0; d < ndim; ++d) {
      Index& size = shape_[missing + d];
      if (sizes[d] == size || sizes[d] == 1) continue;
      if (size != 1) refuse_shapes();
      size = sizes[d];
    }
  }

  [[noreturn]] void refuse_shapes() {
    std::string text = name_of(self_) + ": shapes";
    const char* separator = " ";
    for (std::size_t i = 0; i < count_; ++i) {
      if (!PyArray_Check(args_[i])) continue;
      text += separator + shape_text(as_array(args_[i]));
      separator = ", ";
    }
    throw std::invalid_argument(text + " do not broadcast: sizes must be equal or 1, counted from the last axis");
  }

  bool is_rolled(std::size_t i) const { return self_->rolls && !(*self_->rolls)[i].empty(); }

  void check_rolls() {
    if (self_->rolls) check_rolled();
  }
  __attribute__((noinline, cold)) void check_rolled() {
    if (self_->rolls->size() != count_)
      throw std::invalid_argument(name_of(self_) + ": " + std::to_string(self_->rolls->size()) + " operands are expected, got " + std::to_string(count_));
    for (std::size_t i = 0; i < count_; ++i) {
      if (!is_rolled(i)) continue;
      PyArrayObject* x = varies(i) ? as_array(args_[i]) : nullptr;
      const bool whole = x && PyArray_NDIM(x) == ndim_ && std::equal(shape_, shape_ + ndim_, PyArray_SHAPE(x));
      if (!whole || (*self_->rolls)[i].size() != static_cast<std::size_t>(ndim_))
        throw std::invalid_argument(name_of(self_) + ": operand " + std::to_string(i) + " is rolled, so it must have the results' shape " +
                                    to_string(Shape(shape_, shape_ + ndim_)) + ", and a shift for each of its axes");
      simple_ = false;
    }
  }

  void check_given() {
    for (PyArrayObject* target : given_) {
      if (PyArray_NDIM(target) != ndim_ || !std::equal(shape_, shape_ + ndim_, PyArray_SHAPE(target))) {
        throw std::invalid_argument(name_of(self_) + ": out has shape " + shape_text(target) + ", the result has " +
                                    to_string(Shape(shape_, shape_ + ndim_)));
      }
      if (!PyArray_ISWRITEABLE(target)) throw std::invalid_argument(name_of(self_) + ": out is read-only");
      simple_ &= PyArray_IS_C_CONTIGUOUS(target) && PyArray_ISALIGNED(target);
    }
  }

  // Fresh results lie as the operands do, as in PyTorch: transposed operands are walked in the order of their memory
  // (a.t() + a.t() over 1e7 floats: 11 times faster than into C order). order_: the axes from the innermost on.
  void find_order() {
    for (int d = 0; d < ndim_; ++d) order_[d] = ndim_ - 1 - d;
    for (int d = 1; d < ndim_; ++d) {
      int at = d;
      for (int k = d - 1; k >= 0; --k) {
        const int told = compare_axes(order_[k], order_[at]);
        if (told < 0) break;
        if (told == 0) continue;
        std::swap(order_[k], order_[at]);
        at = k;
        moved_ = true;
      }
    }
  }

  // Above zero if axis a takes the longer steps; the first operand that tells the axes apart decides.
  int compare_axes(int a, int b) const {
    for (std::size_t i = 0; i < count_; ++i) {
      if (!varies(i)) continue;
      PyArrayObject* x = as_array(const_cast<Local<PyObject*, 16>&>(args_)[i]);
      const int missing = ndim_ - PyArray_NDIM(x), p = a - missing, q = b - missing;
      if (p < 0 || q < 0 || PyArray_DIM(x, p) == 1 || PyArray_DIM(x, q) == 1) continue;
      const npy_intp of_a = std::abs(PyArray_STRIDE(x, p)), of_b = std::abs(PyArray_STRIDE(x, q));
      if (of_a && of_b && of_a != of_b) return of_a > of_b ? 1 : -1;
    }
    return 0;
  }

  py::object empty_as_it_lies(DType dtype) const {
    Index lying[kMaxDims];
    npy_intp places[kMaxDims];
    for (int d = 0; d < ndim_; ++d) {
      lying[d] = shape_[order_[ndim_ - 1 - d]];
      places[order_[ndim_ - 1 - d]] = d;
    }
    const py::object made = empty(dtype, lying, ndim_);
    PyArray_Dims axes{places, ndim_};
    PyObject* seen = PyArray_Transpose(as_array(made.ptr()), &axes);
    if (!seen) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(seen);
  }

  const Program& find_program() {
    std::size_t length = count_;
    Local<unsigned char, 24> key(count_ + given_.size() + 4);
    std::copy(key_.data(), key_.data() + count_, key.data());
    for (PyArrayObject* target : given_) key[length++] = static_cast<unsigned char>(kGiven | static_cast<unsigned char>(dtype_of(target)));
    std::memcpy(key.data() + length, &generation, 4);
    length += 4;
    Cache& cache = *self_->cache;
    if (cache.last && cache.last_key.size() == length && std::memcmp(cache.last_key.data(), key.data(), length) == 0) {
      return *cache.last;
    }
    const std::string text(reinterpret_cast<const char*>(key.data()), length);
    auto found = cache.programs.find(text);
    if (found == cache.programs.end()) {
      auto made = make_program();
      found = cache.programs.emplace(text, std::move(made)).first;  // kept if specialize() called back and made it too
    }
    cache.last_key = text;
    cache.last = found->second.get();
    return *cache.last;
  }

  std::unique_ptr<Program> make_program() {
    py::tuple keys(count_);
    std::vector<Input> inputs;
    for (std::size_t i = 0; i < count_; ++i) {
      const unsigned char code = key_[i];
      if (code & kPython) {
        inputs.push_back({Input::Python, DType::Float64});
        keys[i] = py::str(kPythonKeys[code & 3]);
      } else {
        const auto dtype = static_cast<DType>(code & 0x0f);
        inputs.push_back({code & kScalar ? Input::Scalar : Input::Array, dtype});
        keys[i] = py::str(std::string(tg::name_of(dtype)) + (code & kScalar ? ":0" : ""));
      }
    }
    PyObject* result = PyObject_CallOneArg(self_->specialize, keys.ptr());
    if (!result) throw py::error_already_set();
    Source source = read_source(py::reinterpret_steal<py::object>(result), inputs);
    if (given_.size() == source.outputs.size()) {
      for (std::size_t i = 0; i < given_.size(); ++i) source.outputs[i].stored = dtype_of(given_[i]);
    }
    return std::make_unique<Program>(source);
  }

  // Exact: the same elements at the same places. Partial: perhaps others.
  Overlap overlap_of(PyArrayObject* target) {
    Overlap worst = Overlap::None;
    const auto [low, high] = extent(target);
    for (std::size_t i = 0; i < count_; ++i) {
      if (!varies(i)) continue;
      PyArrayObject* x = as_array(args_[i]);
      const auto [first, last] = extent(x);
      if (last <= low || high <= first || low == high || first == last) continue;  // or one has no elements
      const bool same = PyArray_DATA(x) == PyArray_DATA(target) && PyArray_NDIM(x) == ndim_ &&
                        PyArray_ITEMSIZE(x) == PyArray_ITEMSIZE(target) &&
                        std::equal(shape_, shape_ + ndim_, PyArray_SHAPE(x)) &&
                        std::equal(PyArray_STRIDES(x), PyArray_STRIDES(x) + ndim_, PyArray_STRIDES(target)) && !is_rolled(i);
      if (!same) return Overlap::Partial;
      worst = Overlap::Exact;
    }
    return worst;
  }

  static std::pair<const char*, const char*> extent(PyArrayObject* array) {
    const char* low = static_cast<const char*>(PyArray_DATA(array));
    const char* high = low + PyArray_ITEMSIZE(array);
    for (int d = 0; d < PyArray_NDIM(array); ++d) {
      if (PyArray_DIM(array, d) == 0) return {low, low};
      const npy_intp reach = (PyArray_DIM(array, d) - 1) * PyArray_STRIDE(array, d);
      (reach < 0 ? low : high) += reach;
    }
    return {low, high};
  }

  void fill_numbers(const Program& program, Number* numbers) {
    std::copy(program.numbers().begin(), program.numbers().end(), numbers);
    for (const auto& each : program.python_numbers()) numbers[each.at] = number_of(args_[each.input], each.type);
    for (int i = 0; i < static_cast<int>(count_) && !writing(); ++i) {
      const int at = program.number_of_scalar_input(i);
      if (at >= 0) std::memcpy(numbers[at].bytes, PyArray_DATA(as_array(args_[i])), PyArray_ITEMSIZE(as_array(args_[i])));
    }
  }

  void write_pieces(const Program& program, const Number* numbers, const Operand* operands, int ports, int ndim, const Index* shape,
                    const Totals& totals) {
    auto call = written_call(program, numbers, operands, ports, ndim, shape);
    writing()->add(work_of(program, ndim, shape), in_pieces(std::move(call), totals));
  }

  template <class Run>
  void write(const Program& program, const Number* numbers, const Operand* operands, int ports, int ndim, const Index* shape, Run run) {
    launch(work_of(program, ndim, shape),
           [call = written_call(program, numbers, operands, ports, ndim, shape), run,
            values = std::vector<Number>(numbers, numbers + program.numbers().size())]() mutable {
             call->fetch(values.data());
             run(*call, values.data());
           });
  }

  std::shared_ptr<Written> written_call(const Program& program, const Number* numbers, const Operand* operands, int ports, int ndim,
                                        const Index* shape) {
    auto call = std::make_shared<Written>();
    call->formula = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(self_));
    call->program = &program;
    call->numbers.assign(numbers, numbers + program.numbers().size());
    call->shape.assign(shape, shape + ndim);
    for (int i = 0; i < static_cast<int>(count_); ++i) {
      const int at = program.number_of_scalar_input(i);
      if (at < 0) continue;
      PyArrayObject* x = as_array(args_[i]);
      call->fetched.push_back({at, PyArray_DATA(x), static_cast<std::size_t>(PyArray_ITEMSIZE(x))});
    }
    call->strides.reserve(static_cast<std::size_t>(2 * ports * ndim));  // which operands point into
    const auto kept = [&](const Index* numbers) {
      const Index* start = call->strides.data() + call->strides.size();
      call->strides.insert(call->strides.end(), numbers, numbers + ndim);
      return start;
    };
    for (int i = 0; i < ports; ++i) {
      Operand operand{};
      if (program.port(i).varies) {
        operand = operands[i];
        if (operand.strides) operand.strides = kept(operand.strides);
        if (operand.shifts) operand.shifts = kept(operand.shifts);
      }
      call->operands.push_back(operand);
    }
    return call;
  }

  __attribute__((noinline, cold)) void place_rolls(Layout& layout) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (is_rolled(i)) layout.roll(static_cast<int>(i), (*self_->rolls)[i].data());
  }

  // What lay across its own inputs goes to its place by way of an array of its own.
  static void write_back(PyArrayObject* from, PyArrayObject* to) {
    const int ndim = PyArray_NDIM(from);
    const auto of = [&](const npy_intp* numbers) { return std::vector<Index>(numbers, numbers + ndim); };
    const auto shape = of(PyArray_SHAPE(from)), read = of(PyArray_STRIDES(from)), stored = of(PyArray_STRIDES(to));
    const char* source = static_cast<const char*>(PyArray_DATA(from));
    char* target = static_cast<char*>(PyArray_DATA(to));
    const Index item = PyArray_ITEMSIZE(from);
    launch(PyArray_SIZE(from), [=] { copy_strided(item, ndim, shape.data(), source, read.data(), target, stored.data()); });
  }

  // work(operands, ndim, shape) over the first `ports` of inputs and outputs.
  template <class Work>
  void over_operands(const Program& program, int ports, PyArrayObject** targets, Work work) {
    const int inputs = static_cast<int>(count_);
    Local<Operand, 16> operands(static_cast<std::size_t>(ports));
    Index total = 1;
    for (int d = 0; d < ndim_; ++d) total *= shape_[d];
    const auto array_of = [&](int i) { return i < inputs ? as_array(args_[i]) : targets[i - inputs]; };
    const auto describe = [&](int i, const Index* strides) {
      if (!array_of(i)) operands[i] = {nullptr, nullptr, true};  // a result of which only the sum is wanted
      else operands[i] = {static_cast<char*>(PyArray_DATA(array_of(i))), strides, static_cast<bool>(PyArray_ISALIGNED(array_of(i)))};
    };
    if (simple_ || ndim_ == 0) {
      for (int i = 0; i < ports; ++i) {
        if (program.port(i).varies) describe(i, nullptr);
      }
      return work(operands.data(), 1, &total);
    }
    Layout layout(shape_, ndim_, ports);
    for (int i = 0; i < ports; ++i) {
      if (program.port(i).varies && array_of(i)) layout.place(i, PyArray_SHAPE(array_of(i)), PyArray_STRIDES(array_of(i)), PyArray_NDIM(array_of(i)));
    }
    if (self_->rolls) place_rolls(layout);
    if (moved_ || !given_.empty()) layout.order_by(inputs);
    layout.collapse();
    for (int i = 0; i < ports; ++i) {
      if (!program.port(i).varies) continue;
      describe(i, layout.strides(i, program.port(i).item_size));
      if (self_->rolls) operands[i].shifts = layout.shifts(i);
    }
    work(operands.data(), layout.ndim(), layout.shape());
  }

  FormulaObject* self_;
  std::size_t count_;
  Local<PyObject*, 16> args_;
  Local<unsigned char, 24> key_;
  std::vector<PyArrayObject*> given_;
  std::vector<py::object> converted_;
  py::object out_;
  int ndim_ = 0;
  bool simple_ = true, moved_ = false;
  Index shape_[kMaxDims];
  int order_[kMaxDims];
};

}  // namespace formula

}  // namespace tg
