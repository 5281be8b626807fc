#include "kernels/cuda/plan_trial.hpp"

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/lru_map.hpp"
#include "jit/cuda_runtime.hpp"
#include "kernels/cuda/plan_choice.hpp"

namespace pararnn {

namespace timing {

using jit::check_cuda;

/// A point of a stream. Given up also before the device has come to it.
struct Event {
  Event() { check_cuda(jit::cuda().cudaEventCreate(&handle), "make an event"); }
  ~Event() { jit::cuda().cudaEventDestroy(handle); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) const {
    check_cuda(jit::cuda().cudaEventRecord(handle, stream), "time a scan");
  }
  bool is_reached() const { return jit::cuda().cudaEventQuery(handle) == cudaSuccess; }

  cudaEvent_t handle = nullptr;
};

/// What one call is timed with, on one device: events, and memory that the device writes.
struct Timer {
  Timer() {
    void* memory = nullptr;
    check_cuda(jit::cuda().cudaHostAlloc(&memory, sizeof(cuda::Counters), cudaHostAllocDefault),
               "take memory for the counters of a scan");
    counters = static_cast<cuda::Counters*>(memory);
  }

  cuda::Counters* counters = nullptr;  // never given back: that would wait for the device
  Event begin, end, copied;
};

/// The timers that nobody holds, by their device. They are used again, and not before the device
/// has written what it was still to write there.
class IdleTimers {
 public:
  std::unique_ptr<Timer> take(int device) {
    const std::lock_guard lock(mutex_);
    std::vector<std::unique_ptr<Timer>>& idle = timers_[device];
    for (std::unique_ptr<Timer>& timer : idle) {
      if (!timer->copied.is_reached()) continue;
      std::swap(timer, idle.back());
      std::unique_ptr<Timer> taken = std::move(idle.back());
      idle.pop_back();
      return taken;
    }
    return std::make_unique<Timer>();
  }
  void give_back(int device, std::unique_ptr<Timer> timer) {
    const std::lock_guard lock(mutex_);
    timers_[device].push_back(std::move(timer));
  }

 private:
  std::mutex mutex_;
  std::map<int, std::vector<std::unique_ptr<Timer>>> timers_;
};

// Never destroyed: other threads may scan until the process ends.
IdleTimers& idle_timers() {
  static auto& timers = *new IdleTimers;
  return timers;
}

}  // namespace timing

namespace {

std::atomic<int64_t> explored_calls = 0, replay_count = 0;

}  // namespace

int64_t calls_that_explored() { return explored_calls; }

void count_replay() { ++replay_count; }

struct PlanTrial::Entry {
  Entry(int the_device, const PlanRequest& request)
      : choice(request),
        columns(request.batch * request.channels),
        device(the_device),
        replays(replay_count) {}
  ~Entry() {
    if (timer) timing::idle_timers().give_back(device, std::move(timer));
  }
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;

  /// PlanChoice's: replays since the last call were calls as well.
  bool wants_time() {
    const int64_t before = std::exchange(replays, replay_count.load());
    return choice.wants_time(1 + replays - before);
  }

  /// Learns from the call that was timed, if the device is done with it.
  void collect() {
    if (!pending || !timer->copied.is_reached()) return;
    float milliseconds = 0;
    jit::check_cuda(
        jit::cuda().cudaEventElapsedTime(&milliseconds, timer->begin.handle, timer->end.handle),
        "read the time of a scan");
    choice.record(milliseconds, double(timer->counters->columns_corrected) / double(columns));
    pending = false;
  }

  PlanChoice choice;
  int64_t columns;
  int device;
  int64_t replays;                       // that were counted
  std::unique_ptr<timing::Timer> timer;  // once it is needed
  bool running = false;                  // between begin and end
  bool pending = false;                  // since then, until it is collected
};

namespace {

using jit::check_cuda;

/// A model has two for each layer and shape. A program that never calls twice alike shall not
/// remember all of its calls.
constexpr size_t kMostPlaces = 512;

std::mutex mutex;

std::shared_ptr<PlanTrial::Entry> find_entry(const Place& place, const PlanRequest& request) {
  // Never destroyed: other threads may scan until the process ends.
  static auto& entries = *new LruMap<Place, std::shared_ptr<PlanTrial::Entry>>(kMostPlaces);
  return entries.find_or_make(
      place, [&] { return std::make_shared<PlanTrial::Entry>(place.device, request); });
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(jit::cuda().cudaStreamIsCapturing(stream, &status),
             "tell whether a stream is captured");
  return status != cudaStreamCaptureStatusNone;
}

/// Whether there is no other plan than to run the sequence in order.
bool is_in_order(const PlanRequest& r) { return r.way == "sequential" || r.steps <= kChunkUnit; }

}  // namespace

Plan remembered_plan(const PlanRequest& r) {
  // As for each step of decoding: nothing to look at, and less to do than to remember it.
  if (is_in_order(r)) return {Way::kSequential, r.steps, 1, 0};
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, int, int, std::string,
                         std::int64_t, std::int64_t, double, double>;
  static auto& plans = *new LruMap<Key, Plan>(kMostPlaces);
  static std::mutex of_plans;
  const std::lock_guard lock(of_plans);
  return plans.find_or_make({r.batch, r.steps, r.channels, r.lanes, r.threads, std::string(r.way),
                             r.chunk, r.burn_in, r.step_base, r.step_slope},
                            [&] { return make_plan(r); });
}

PlanTrial::PlanTrial(const Place& place, const PlanRequest& request, cudaStream_t stream)
    : stream_(stream) {
  if (request.way != "auto" || request.chunk != 0 || request.burn_in >= 0 || is_in_order(request)) {
    plan_ = remembered_plan(request);
    return;
  }
  const std::lock_guard lock(mutex);
  const std::shared_ptr<Entry> entry = find_entry(place, request);
  // The device is asked nothing unless there is something to learn.
  if (entry->pending) {
    const jit::RelaxedCapture relaxed;
    if (!is_capturing(stream)) entry->collect();
  }
  plan_ = entry->choice.best();
  if (entry->choice.exploring()) ++explored_calls;
  if (entry->running || entry->pending || !entry->wants_time()) return;
  const jit::RelaxedCapture relaxed;
  if (is_capturing(stream)) return;
  if (!entry->timer) entry->timer = timing::idle_timers().take(place.device);
  plan_ = entry->choice.next();
  entry->timer->begin.record(stream);
  entry->running = true;
  timed_ = entry;
}

void PlanTrial::finish(const cuda::Counters* counters) {
  if (!timed_) return;
  const jit::RelaxedCapture relaxed;
  const std::lock_guard lock(mutex);
  const timing::Timer& timer = *timed_->timer;
  timer.end.record(stream_);
  if (counters) {
    check_cuda(jit::cuda().cudaMemcpyAsync(timer.counters, counters, sizeof *counters,
                                           cudaMemcpyDeviceToHost, stream_),
               "copy what a scan has found");
  } else {
    std::memset(timer.counters, 0, sizeof *counters);
  }
  timer.copied.record(stream_);
  timed_->running = false;
  timed_->pending = true;
  timed_.reset();
}

PlanTrial::~PlanTrial() {
  if (!timed_) return;  // finished, or not timed
  const std::lock_guard lock(mutex);
  timed_->running = false;
}

}  // namespace pararnn
