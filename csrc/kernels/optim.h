// Updates of many parameters at once: one pass over every element, all tensors dealt to the threads together.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/dtype.h"

namespace tg {

// n values of one tensor, in memory order; every pointer of a tensor runs in that same order.
struct SgdSpan {
  void* param;
  const void* grad;
  void* momentum;  // null without momentum
  Index n;
  int group = 0;  // the number of its rates
};

struct SgdRates {
  double lr, momentum, dampening, weight_decay, scale;  // scale: of every gradient, as it is read
  bool fresh, nesterov, maximize;  // fresh: the momentum buffers take the gradient as it is
};

struct AdamSpan {
  void* param;
  const void* grad;
  void *mean, *square, *largest;  // largest is null without amsgrad
  Index n;
  int group = 0;
};

struct AdamRates {
  double lr, beta1, beta2, eps, weight_decay, step, scale;
  bool decoupled, maximize;
};

// Matrices that follow each other, each with its own factors; a vector has a moment for each element instead, in `rows`.
struct FactoredSpan {
  void* param;
  const void* grad;
  void *rows, *cols;  // cols is null for a vector: one matrix of one row
  Index matrices, height, width;
  Index size() const { return matrices * height * width; }
};

struct FactoredRates {
  double rho, rest, eps1, eps2, shrink, clip;
  bool maximize;
};

struct MuonSpan {
  void* param;
  const void* grad;
  void* momentum;
  Index height, width;
  const double* rate;
  Index size() const { return height * width; }
};

struct MuonRates {
  double momentum, shrink, eps;
  double coefficients[3];
  Index steps;
  bool nesterov;
};

struct Span {
  void* data;
  Index n;
};

// `rates`: of every group. Here and where a dtype is given below: of any floating type; those of 16 bits are computed in
// float and rounded once.
void sgd_step(const std::vector<SgdSpan>& spans, const std::vector<SgdRates>& rates, DType type);
void adam_step(const std::vector<AdamSpan>& spans, const std::vector<AdamRates>& rates, DType type);
// In optim_factored.cpp. No span is empty.
void factored_step(const std::vector<FactoredSpan>& spans, const FactoredRates& rates, bool is_double);

// In optim_orthogonal.cpp. No span is empty.
void muon_step(const std::vector<MuonSpan>& spans, const MuonRates& rates, bool is_double);

// The p-norm of all values together (p = infinity: the largest magnitude); NaN and infinity propagate.
double norm_of_all(const std::vector<Span>& spans, double p, DType type);
void scale_all(const std::vector<Span>& spans, double factor, DType type);
// The same, and whether some value is infinite or NaN then.
bool unscale_all(const std::vector<Span>& spans, double factor, DType type);

// A loss scale's rule: times `backoff` where a gradient was not finite, times `growth` after `interval` finite steps in a
// row, unless it would be infinite then; `count` counts these.
void update_loss_scale(float& scale, std::int32_t& count, bool found, double growth, double backoff, std::int64_t interval);

}  // namespace tg
