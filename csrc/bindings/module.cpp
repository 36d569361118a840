// The extension module. Its kernels lie in a library per instruction set, of which the Python side loads one before it
// loads this: code for a newer processor can't leak into the path of an older one through shared templates.
#include "../core/bind.h"

#include <pybind11/stl.h>

#include <vector>

#include "../core/allocator.h"
#include "../core/blas.h"
#include "../core/cpus.h"
#include "../core/parallel.h"
#include "../kernels/amx_tiles.h"

namespace tg {
namespace {
std::vector<Binder>& binders() {
  static std::vector<Binder> all;
  return all;
}
}  // namespace

bool add_binder(Binder binder) {
  binders().push_back(binder);
  return true;
}

void run_binders(pybind11::module_& m) {
  for (Binder binder : binders()) binder(m);
}

}  // namespace tg

PYBIND11_MODULE(_C_bindings, m) {
  namespace py = pybind11;
  if (tg::import_numpy() < 0) throw py::error_already_set();
  m.def("set_num_threads", &tg::set_num_threads);
  m.def("num_threads", &tg::num_threads);
  m.def("usable_cpus", &tg::usable_cpus, py::arg("proc") = "/proc");
  m.def("use_amx", &tg::amx::use);
  m.def("blas_load", [](const std::string& path) { tg::blas_load(path.c_str()); });
  m.def("blas_info", [] { return std::string(tg::blas_config()); });
  m.def("trim_memory", &tg::trim_memory);
  m.def("memory_stats", [] {
    const tg::MemoryStats s = tg::memory_stats();
    py::dict stats;
    stats["in_use"] = s.in_use;
    stats["cached"] = s.cached;
    stats["peak"] = s.peak;
    stats["peak_in_use"] = s.peak_in_use;
    return stats;
  });
  m.def("empty", [](py::handle like_dtype, const std::vector<tg::Index>& shape) {
    return tg::empty(tg::view(like_dtype, "empty: like").dtype, shape);
  });
  tg::run_binders(m);
}
