#include "ops/cuda/plan_trial.hpp"

#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>

#include <cstring>
#include <mutex>

#include "base/lru_map.hpp"
#include "jit/kernel.hpp"
#include "ops/cuda/plan_choice.hpp"

namespace pararnn {
struct PlanTrial::Entry {
  /// A point of a stream. Given up also before the device has come to it.
  struct Event {
    Event() { jit::check_cuda(cudaEventCreate(&handle), "make an event"); }
    ~Event() { cudaEventDestroy(handle); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    void record(cudaStream_t stream) const {
      jit::check_cuda(cudaEventRecord(handle, stream), "time a scan");
    }

    cudaEvent_t handle = nullptr;
  };

  explicit Entry(const PlanRequest& request)
      : choice(request),
        columns(request.batch * request.channels),
        counters(torch::zeros({int64_t(sizeof(cuda::Counters))},
                              torch::dtype(torch::kUInt8).pinned_memory(true))) {}

  /// Learns from the call that was timed, if the device is done with it.
  void collect() {
    if (!pending || cudaEventQuery(copied.handle) != cudaSuccess) return;
    float milliseconds = 0;
    jit::check_cuda(cudaEventElapsedTime(&milliseconds, begin.handle, end.handle),
                    "read the time of a scan");
    cuda::Counters found;
    std::memcpy(&found, counters.data_ptr(), sizeof found);
    choice.record(milliseconds, double(found.columns_corrected) / double(columns));
    pending = false;
  }

  PlanChoice choice;
  int64_t columns;
  torch::Tensor counters;  // in memory that the device writes
  Event begin, end, copied;
  bool running = false;  // between begin and end
  bool pending = false;  // since then, until it is collected
};

namespace {

/// A model has two for each layer and shape. A program that never calls twice alike shall not
/// remember all of its calls.
constexpr size_t kMostPlaces = 512;

std::mutex mutex;

std::shared_ptr<PlanTrial::Entry> find_entry(const Place& place, const PlanRequest& request) {
  // Never destroyed: other threads may scan until the process ends.
  static auto& entries = *new LruMap<Place, std::shared_ptr<PlanTrial::Entry>>(kMostPlaces);
  return entries.find_or_make(place, [&] { return std::make_shared<PlanTrial::Entry>(request); });
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  jit::check_cuda(cudaStreamIsCapturing(stream, &status), "tell whether a stream is captured");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace

PlanTrial::PlanTrial(const Place& place, const PlanRequest& request, c10::cuda::CUDAStream stream)
    : plan_(make_plan(request)), stream_(stream) {
  const bool learns = request.way == "auto" && request.chunk == 0 && request.burn_in < 0 &&
                      plan_.way != Way::kSequential &&
                      !at::globalContext().deterministicAlgorithms();
  if (!learns) return;
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
  const std::lock_guard lock(mutex);
  const std::shared_ptr<Entry> entry = find_entry(place, request);
  const bool capturing = is_capturing(stream);
  if (!capturing) entry->collect();
  const bool busy = entry->pending || entry->running;
  if (capturing || busy || !entry->choice.wants_time()) {
    plan_ = entry->choice.best();
    return;
  }
  plan_ = entry->choice.next();
  entry->begin.record(stream);
  entry->running = true;
  timed_ = entry;
}

void PlanTrial::finish(const cuda::Counters* counters) {
  if (!timed_) return;
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
  const std::lock_guard lock(mutex);
  timed_->end.record(stream_);
  void* found = timed_->counters.data_ptr();
  if (counters) {
    jit::check_cuda(
        cudaMemcpyAsync(found, counters, sizeof *counters, cudaMemcpyDeviceToHost, stream_),
        "copy what a scan has found");
    // Should the entry be forgotten now, nobody else gets this memory before the copy is done.
    at::getHostAllocator(at::kCUDA)->record_event(
        found, timed_->counters.storage().data_ptr().get_context(), stream_.unwrap());
  } else {
    std::memset(found, 0, sizeof *counters);
  }
  timed_->copied.record(stream_);
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
