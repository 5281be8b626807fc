#include "ops/cuda/plan_trial.hpp"

#include <ATen/Context.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>

#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "jit/kernel.hpp"
#include "ops/cuda/plan_choice.hpp"

namespace pararnn {

struct PlanTrial::Entry {
  explicit Entry(const PlanRequest& request)
      : choice(request),
        columns(request.batch * request.channels),
        counters(torch::zeros({int64_t(sizeof(cuda::Counters))},
                              torch::dtype(torch::kUInt8).pinned_memory(true))) {
    for (cudaEvent_t* event : {&begin, &end, &copied}) {
      jit::check_cuda(cudaEventCreate(event), "make an event");
    }
  }

  /// Learns from the call that was timed, if the device is done with it.
  void collect() {
    if (!pending || cudaEventQuery(copied) != cudaSuccess) return;
    float milliseconds = 0;
    jit::check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), "read the time of a scan");
    cuda::Counters found;
    std::memcpy(&found, counters.data_ptr(), sizeof found);
    choice.record(milliseconds, double(found.columns_corrected) / double(columns));
    pending = false;
  }

  PlanChoice choice;
  int64_t columns;
  torch::Tensor counters;  // in memory that the device writes
  cudaEvent_t begin = nullptr, end = nullptr, copied = nullptr;
  bool running = false;  // between begin and end
  bool pending = false;  // since then, until it is collected
};

namespace {

/// A program that never calls twice alike shall not remember all of its calls.
constexpr size_t kMostPlaces = 4096;

std::mutex mutex;

/// Null if there are too many places. Entries live as long as the process.
PlanTrial::Entry* find_entry(const Place& place, const PlanRequest& request) {
  static auto& entries = *new std::map<Place, std::unique_ptr<PlanTrial::Entry>>;
  const auto found = entries.find(place);
  if (found != entries.end()) return found->second.get();
  if (entries.size() >= kMostPlaces) return nullptr;
  return entries.emplace(place, std::make_unique<PlanTrial::Entry>(request)).first->second.get();
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  jit::check_cuda(cudaStreamIsCapturing(stream, &status), "tell whether a stream is captured");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace

PlanTrial::PlanTrial(const Place& place, const PlanRequest& request, cudaStream_t stream)
    : plan_(make_plan(request)), stream_(stream) {
  const bool learns = request.way == "auto" && request.chunk == 0 && request.burn_in < 0 &&
                      plan_.way != Way::kSequential &&
                      !at::globalContext().deterministicAlgorithms();
  if (!learns) return;
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
  const std::lock_guard lock(mutex);
  Entry* entry = find_entry(place, request);
  if (!entry) return;
  const bool capturing = is_capturing(stream);
  if (!capturing) entry->collect();
  const bool busy = entry->pending || entry->running;
  if (capturing || busy || !entry->choice.wants_time()) {
    plan_ = entry->choice.best();
    return;
  }
  plan_ = entry->choice.next();
  entry->running = true;
  timed_ = entry;
  jit::check_cuda(cudaEventRecord(entry->begin, stream), "time a scan");
}

void PlanTrial::finish(const cuda::Counters* counters) {
  if (!timed_) return;
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
  const std::lock_guard lock(mutex);
  jit::check_cuda(cudaEventRecord(timed_->end, stream_), "time a scan");
  void* found = timed_->counters.data_ptr();
  if (counters) {
    jit::check_cuda(
        cudaMemcpyAsync(found, counters, sizeof *counters, cudaMemcpyDeviceToHost, stream_),
        "copy what a scan has found");
  } else {
    std::memset(found, 0, sizeof *counters);
  }
  jit::check_cuda(cudaEventRecord(timed_->copied, stream_), "time a scan");
  timed_->running = false;
  timed_->pending = true;
  timed_ = nullptr;
}

PlanTrial::~PlanTrial() {
  if (!timed_) return;  // finished, or not timed
  const std::lock_guard lock(mutex);
  timed_->running = false;
}

}  // namespace pararnn
