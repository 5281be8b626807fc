// Vectors and matrices of batches taken apart: by register, by a mask, by component. A step with
// its derivatives fills many registers, so kernels take those of a group one by one within a step.
// That leaves the processor independent chains of operations to overlap, and spills less.
#pragma once

#include "pararnn/core/vec.hpp"
#include "pararnn/cpu/simd.hpp"

namespace pararnn::cpu {
inline namespace PARARNN_INSTRUCTION_SET {

/// Registers that advance together: two hide the latency of one; with four-component states one
/// already fills the register file.
template <class C, class T>
inline constexpr int kLanesFor = (C::kState >= 4 ? 1 : 2) * kNativeLanes<T>;

/// One register of a batch.
template <class B>
using PartOf = Batch<typename B::Scalar, kNativeLanes<typename B::Scalar>>;

template <class B, int N>
PARARNN_FN Vec<PartOf<B>, N> part_of(const Vec<B, N>& x, int part) {
  Vec<PartOf<B>, N> result{};
  static_for<N>([&](auto n) PARARNN_LAMBDA { result[n].registers[0] = x[n].registers[part]; });
  return result;
}

template <class B, int N>
PARARNN_FN void set_part(Vec<B, N>& x, int part, const Vec<PartOf<B>, N>& value) {
  static_for<N>([&](auto n) PARARNN_LAMBDA { x[n].registers[part] = value[n].registers[0]; });
}

/// A part of the N components that a block holds for a step, `from` being its first number.
template <class B, int N>
PARARNN_FN Vec<PartOf<B>, N> load_part(const typename B::Scalar* from, int part) {
  Vec<PartOf<B>, N> result{};
  static_for<N>([&](auto n) PARARNN_LAMBDA {
    result[n] = PartOf<B>::load(from + n * B::kLanes + part * PartOf<B>::kLanes);
  });
  return result;
}

template <class B, int N>
PARARNN_FN Vec<B, N> select_vec(const typename B::Integer& mask, const Vec<B, N>& a,
                                const Vec<B, N>& b) {
  Vec<B, N> result{};
  static_for<N>([&](auto n) PARARNN_LAMBDA { result[n] = select(mask, a[n], b[n]); });
  return result;
}

template <class B, int R, int C>
PARARNN_FN Mat<PartOf<B>, R, C> part_of(const Mat<B, R, C>& m, int part) {
  Mat<PartOf<B>, R, C> result{};
  static_for<R>([&](auto r) PARARNN_LAMBDA {
    static_for<C>([&](auto c)
                      PARARNN_LAMBDA { result(r, c).registers[0] = m(r, c).registers[part]; });
  });
  return result;
}

template <class B, int R, int C>
PARARNN_FN void set_part(Mat<B, R, C>& m, int part, const Mat<PartOf<B>, R, C>& value) {
  static_for<R>([&](auto r) PARARNN_LAMBDA {
    static_for<C>([&](auto c)
                      PARARNN_LAMBDA { m(r, c).registers[part] = value(r, c).registers[0]; });
  });
}

template <class B, int R, int C>
PARARNN_FN Mat<B, R, C> select_mat(const typename B::Integer& mask, const Mat<B, R, C>& a,
                                   const Mat<B, R, C>& b) {
  Mat<B, R, C> result{};
  static_for<R>([&](auto r) PARARNN_LAMBDA {
    static_for<C>([&](auto c) PARARNN_LAMBDA { result(r, c) = select(mask, a(r, c), b(r, c)); });
  });
  return result;
}

/// The entries of a matrix, row by row.
template <class B, int R, int C>
PARARNN_FN Vec<B, R * C> flatten(const Mat<B, R, C>& m) {
  Vec<B, R * C> result{};
  static_for<R>([&](auto r) PARARNN_LAMBDA {
    static_for<C>([&](auto c) PARARNN_LAMBDA { result[r * C + c] = m(r, c); });
  });
  return result;
}

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
