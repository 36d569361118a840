// Gradients of slices of one array that lie side by side, put where they belong as they come.
#pragma once

#include <string>
#include <unordered_map>

#include "tape.h"

namespace tape {

// q, k, v = x[0], x[1], x[2], and what split, chunk and unbind give. Each gradient is written to its place in an array whose
// other elements mean nothing yet; by the rule the first would fill the whole array with zeros and the next be added to
// them. A permuted array's gradient is laid out as the source's, or it would be copied once more. For arrays that are not
// NumPy's, autograd/side_by_side.py does the same.
class SideBySide {
 public:
  // Takes the gradient g of node, a slice: 2 where it is the first to arrive for the node that was sliced, 1 where others were
  // there, 0 where the rule must say it, -1 with an error set. `pending`: what has arrived for each node.
  int take(PyObject* pending, PyObject* door, NodeObject* node, PyObject* g);
  // Before anybody else reads what has arrived for a node, or for any: zeros where nothing was written.
  bool finish(PyObject* node);
  bool finish_all();

 private:
  struct Half {
    PyObject* array;  // that of `pending`, which alone knows it
    Ref door;  // the thread may get others while a pass is under way
    int axis;
    std::string covered;  // one byte for each position along the axis
  };
  bool zeros(const Half& half);
  int take_others(PyObject* pending, PyObject* door, NodeObject* node, PyObject* g);
  std::unordered_map<PyObject*, Half> halves_;
  Ref others_;         // Python's, once there was a slice of such an array
  bool open_ = false;  // whether it has any of which elements mean nothing
};

}  // namespace tape
