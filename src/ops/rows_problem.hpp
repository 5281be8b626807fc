// What host and kernels agree on of rows of channels.
#pragma once

namespace pararnn::ops {

/// Threads of a block, where a row has not more.
inline constexpr int kRowBlockThreads = 128;

}  // namespace pararnn::ops
