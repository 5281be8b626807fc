// A recurrence of affine maps along the chunks of a column, x_{i+1} = f_i(x_i), by the 32 threads
// of a warp. Each composes the maps of some neighbouring chunks; a scan over the threads (Kogge and
// Stone 1973) gives each the state at which its chunks begin; each then follows its own.
#pragma once

#include "pararnn/core/affine.hpp"
#include "pararnn/cuda/lanes.hpp"

namespace pararnn::cuda {

/// The warp of this thread, counted over the grid, and how many there are.
PARARNN_DEVICE_FN Int warp_index() { return thread_index() / kWarp; }
PARARNN_DEVICE_FN Int warp_count() { return thread_count() / kWarp; }

/// Maps that a thread loads before it composes the first, as registers permit.
template <int S>
inline constexpr int kMapsAhead = S == 1   ? 8
                                  : S == 2 ? 4
                                           : 1;

/// The map of the thread `distance` before this one.
template <class T, int S>
__device__ Affine<T, S> shuffle_up(const Affine<T, S>& map, int distance) {
  constexpr unsigned kAll = 0xffffffffu;
  Affine<T, S> result{};
  static_for<S>([&](auto r) {
    result.offset[r] = __shfl_up_sync(kAll, map.offset[r], distance);
    static_for<S>(
        [&](auto c) { result.matrix(r, c) = __shfl_up_sync(kAll, map.matrix(r, c), distance); });
  });
  return result;
}

/// x_0 = initial, x_{i+1} = follow(i, load(i), x_i) for 0 <= i < count, where load(i) has a member
/// `map` that is f_i. All threads of the warp call it alike. A product of maps that overflows gives
/// states that are not finite.
template <class T, int S, class Load, class Follow>
__device__ void scan_by_warp(Int count, const Vec<T, S>& initial, const Load& load,
                             const Follow& follow) {
  const int thread = threadIdx.x % kWarp;
  const Int each = (count + kWarp - 1) / kWarp;
  const Int first = thread * each, last = first + each < count ? first + each : count;
  const auto each_item = [&](const auto& f) {
    constexpr int kAhead = kMapsAhead<S>;
    for (Int i = first; i < last; i += kAhead) {
      decltype(load(i)) items[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k) items[k] = load(i + k < last ? i + k : last - 1);
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (i + k < last) f(i + k, items[k]);
      }
    }
  };
  Affine<T, S> composed = identity_map<T, S>();
  each_item([&](Int, const auto& item) { composed = compose(item.map, composed); });
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Affine<T, S> earlier = shuffle_up(composed, distance);
    if (thread >= distance) composed = compose(composed, earlier);
  }
  const Affine<T, S> before = shuffle_up(composed, 1);
  Vec<T, S> x = thread == 0 ? initial : before(initial);
  each_item([&](Int i, const auto& item) { x = follow(i, item, x); });
}

}  // namespace pararnn::cuda
