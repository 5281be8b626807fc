// Work on a GPU as a CUDA graph: launched once more without the host's part of it.
#pragma once

#include <functional>

namespace pararnn::ops {

/// Captures what `run` launches on the current stream, which must not be the default one; the
/// result replays it on the stream that is current then. What `run` allocates stays as long as the
/// result. Everything that it needs must have run before, as `run` itself once. Throws Error, one
/// sentence, if something in it cannot be captured.
std::function<void()> capture_graph(const std::function<void()>& run);

}  // namespace pararnn::ops
