// The numbers of the chunked Newton method (docs/method.md) that hold on every device.
#pragma once

namespace pararnn {

/// Chunks and burn-ins are whole numbers of so many steps, and so of the steps between two
/// checkpoints on any device.
inline constexpr int kChunkUnit = 16;

/// Most corrections after the first verification, before the chunks that are still wrong are walked
/// in order.
inline constexpr int kMaxNewtonIterations = 8;

/// The mismatch that a boundary between chunks may have, in the arithmetic of T.
template <class T>
inline constexpr double kDefaultTolerance = sizeof(T) == 8 ? 1e-12 : 1e-6;

/// The largest that may be asked for: what is more would verify nothing.
inline constexpr double kLargestTolerance = 0.1;

}  // namespace pararnn
