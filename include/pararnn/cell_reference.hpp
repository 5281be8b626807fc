// The plain loops of a cell as a table of functions, so that programs which know a cell by name
// only can compare with it.
#pragma once

#include "pararnn/reference_bounds.hpp"

namespace pararnn {

/// The loops of reference.hpp and reference_bounds.hpp for one cell.
struct CellReference {
  template <class T>
  using Forward = void (*)(const Shape& shape, const T* u, const T* w, const T* h0, T* y, T* hT,
                           T* states, const Sequences& sequences);
  template <class T>
  using Backward = void (*)(const Shape& shape, const T* u, const T* w, const T* h0, const T* dy,
                            const T* dhT, T* du, T* dw, T* dh0, const Sequences& sequences);
  using Bounds = BoundedResult (*)(const Shape& shape, const double* u, const double* w,
                                   const double* h0, const double* dy, const double* dhT,
                                   const Permitted& permitted, const Trajectory* follow,
                                   const Sequences& sequences);

  Forward<float> single_forward;
  Backward<float> single_backward;
  Bounds single_bounds;
  Forward<double> double_forward;
  Backward<double> double_backward;
  Bounds double_bounds;
};

template <Cell C>
CellReference make_reference() {
  return {&reference_forward<C, float>,   &reference_backward<C, float>,
          &reference_bounds<C, float>,    &reference_forward<C, double>,
          &reference_backward<C, double>, &reference_bounds<C, double>};
}

}  // namespace pararnn
