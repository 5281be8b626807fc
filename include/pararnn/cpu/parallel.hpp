// Who runs the tasks: the engine does not own threads, it is handed an executor.
#pragma once

#include <cstdint>
#include <functional>

namespace pararnn::cpu {

/// Runs task(0), ..., task(count - 1) in any order on `threads` threads and returns when all are
/// done.
struct Executor {
  int threads = 1;
  std::function<void(std::int64_t count, const std::function<void(std::int64_t)>& task)> run;
};

/// Everything on the calling thread.
inline Executor serial_executor() {
  return {1, [](std::int64_t count, const std::function<void(std::int64_t)>& task) {
            for (std::int64_t i = 0; i < count; ++i) task(i);
          }};
}

}  // namespace pararnn::cpu
