// What a node's op makes of the gradient of its output.
#pragma once

#include "tape.h"

namespace tape {

// Of a pass to requested inputs: the nodes that lead to some and the leaves among them, by identity; null in a pass to all.
struct Ways {
  PyObject *nodes = nullptr, *leaves = nullptr;

  // Whether the gradient that goes there is asked for: 1, 0, or -1 with an error set. Node.asked
  int ask(PyObject* edge) const {
    if (edge == Py_None) return 0;
    if (!nodes) return 1;
    if (is_node(edge)) return PySet_Contains(nodes, edge);
    Ref key(PyLong_FromVoidPtr(edge));
    return key ? PySet_Contains(leaves, key.get()) : -1;
  }
};

// The gradients of a node's inputs, by C where it can and by Op.differentiate elsewhere. Those that the pass does not ask for may
// be None.
PyObject* differentiate(PyObject* door, NodeObject* node, PyObject* g, const Ways& ways);

}  // namespace tape
