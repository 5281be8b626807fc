// A group of W lanes: which chunk of which column each is, and how their numbers come from memory
// and go back. Lanes that are neighbouring channels of one chunk form a run, copied as a piece: a
// full run is one vector load, eight channels of four chunks are four short copies, and a single
// channel whose chunks fill the lanes is a gather. Kernels see only dense blocks of
// kCheckpointInterval steps.
#pragma once

#include <new>

#include "pararnn/core/vec.hpp"
#include "pararnn/cpu/storage.hpp"

namespace pararnn::cpu {
inline namespace PARARNN_INSTRUCTION_SET {

/// Lanes [first, first + length): channels from `channel` on, of one chunk of one batch row.
struct Run {
  int first, length;
  std::int64_t row, chunk, channel;
  std::int64_t begin, steps;  // of the chunk
};

/// How many steps of a block each run takes part in.
struct Rows {
  int most = 0;
  bool ragged = false;  // not all runs have the same number
};

template <class T, int W>
class LaneGroup {
 public:
  using B = Batch<T, W>;

  /// Lanes ids[0..count). Runs end where a head of `head_width` channels ends.
  LaneGroup(const Chunking& chunking, const std::int64_t* ids, int count, std::int64_t head_width)
      : chunking_(&chunking), run_count_(0), longest_(0) {
    for (int i = 0; i < count; ++i) {
      const std::int64_t channel = ids[i] % chunking.channels;
      if (i > 0 && ids[i] == ids[i - 1] + 1 && channel % head_width != 0) {
        ++runs_[run_count_ - 1].length;
        continue;
      }
      Run& run = runs_[run_count_++];
      const std::int64_t row_and_chunk = ids[i] / chunking.channels;
      run = {i, 1, row_and_chunk / chunking.chunks, row_and_chunk % chunking.chunks, channel, 0, 0};
      run.begin = run.chunk * chunking.chunk;
      const std::int64_t left = chunking.steps - run.begin;
      run.steps = left < chunking.chunk ? left : chunking.chunk;
      longest_ = run.steps > longest_ ? run.steps : longest_;
    }
  }

  /// Steps of the longest chunk.
  std::int64_t longest() const { return longest_; }

  /// Sets the rows of a block that starts at step t of a span of steps_of(run) steps.
  template <class F>
  Rows set_rows(std::int64_t t, F&& steps_of) {
    Rows result;
    for (int r = 0; r < run_count_; ++r) {
      const std::int64_t left = steps_of(runs_[r]) - t;
      rows_[r] = left < 0 ? 0 : left < kCheckpointInterval ? int(left) : int(kCheckpointInterval);
      result.ragged = result.ragged || rows_[r] != rows_[0];
      result.most = rows_[r] > result.most ? rows_[r] : result.most;
    }
    return result;
  }
  Rows set_rows(std::int64_t t) {
    return set_rows(t, [](const Run& run) { return run.steps; });
  }

  /// The rows that were set, lane by lane.
  B rows() const {
    alignas(B) T values[W] = {};
    for (int r = 0; r < run_count_; ++r) fill(values, r, T(rows_[r]));
    return B::load(values);
  }

  /// Finds before which steps of the block that starts at step t of the chunks, whose rows are set,
  /// the state of a run starts anew: forward, before those behind its first row; backward, before
  /// its rows. Returns whether there are any.
  bool set_starts(const BlockStarts* starts, std::int64_t t, bool forward) {
    starts_ = 0;
    for (int r = 0; starts && r < run_count_; ++r) {
      bits_[r] = 0;
      if (rows_[r] == 0) continue;
      block_[r] = runs_[r].begin + t;
      const std::int64_t number = block_[r] / kCheckpointInterval;
      const BlockStarts& block = starts[runs_[r].row * chunking_->checkpoint_count() + number];
      bits_[r] = block.bits & (forward ? (2u << rows_[r]) - 2 : (1u << rows_[r]) - 1);
      sequence_[r] = block.sequence;
      starts_ |= bits_[r];
    }
    return starts_ != 0;
  }
  /// The first step behind `first`, at most `last`, before which a state starts anew, or `last`.
  int next_start(int first, int last) const {
    int i = first + 1;
    while (i < last && !(starts_ >> i & 1)) ++i;
    return i;
  }
  /// The last step before `last` before which a state starts anew, or 0.
  int previous_start(int last) const {
    int i = last - 1;
    while (i > 0 && !(starts_ >> i & 1)) --i;
    return i;
  }
  /// The lanes whose state starts anew before step i.
  typename B::Integer start_anew(int i) const {
    alignas(B) T values[W] = {};
    for (int r = 0; r < run_count_; ++r) fill(values, r, T(bits_[r] >> i & 1));
    return less(B(T(0)), B::load(values)).bits;
  }
  /// Replaces the states of those lanes, and keeps the final states of sequences if `hT` is given.
  template <int S>
  void start_anew(int i, const Sequences& sequences, const T* h0, T* hT, Vec<B, S>& h) {
    replace_where_starts<S>(i, h, [&](int r, T* at) -> const T* {
      if (!sequences.offsets) return nullptr;
      const std::int64_t t = block_[r] + i;
      if (hT) copy_lanes<S>(at, r, hT + state_offset<S>(sequence_[r], r));
      if (t == chunking_->steps) return nullptr;
      sequence_[r] = sequence_after(sequences, sequence_[r], t);
      return h0 ? h0 + state_offset<S>(sequence_[r], r) : nullptr;
    });
  }
  /// The same on the way back: the adjoints of initial states to `dh0` if it is given, and those of
  /// the final states before. Behind start_anew for the steps of the block.
  template <int S>
  void end_anew(int i, const Sequences& sequences, const T* dhT, T* dh0, Vec<B, S>& mu) {
    replace_where_starts<S>(i, mu, [&](int r, T* at) -> const T* {
      if (!sequences.offsets) return nullptr;
      const std::int64_t t = block_[r] + i;
      if (dh0) copy_lanes<S>(at, r, dh0 + state_offset<S>(sequence_[r], r));
      if (t == 0) return nullptr;
      sequence_[r] = sequence_before(sequences, sequence_[r], t);
      return dhT + state_offset<S>(sequence_[r], r);
    });
  }

  /// A batch that is f(run) in the lanes of each run, and 0 in lanes that the group does not have.
  template <class F>
  B each_run(F&& f) const {
    alignas(B) T values[W] = {};
    for (int r = 0; r < run_count_; ++r) fill(values, r, f(runs_[r]));
    return B::load(values);
  }

  /// Boundary values (B,P,N,D).
  template <int N>
  Vec<B, N> load_boundary(const T* from) const {
    return gather<N>(from, [&](int r, int n) { return boundary_offset(runs_[r], N, n); });
  }
  template <int N>
  void store_boundary(const Vec<B, N>& values, T* to) const {
    scatter<N>(values, to, [&](int r, int n) { return boundary_offset(runs_[r], N, n); });
  }

  /// Parameters (N,D), the same for every row and chunk.
  template <int N>
  Vec<B, N> load_parameters(const T* from) const {
    return gather<N>(from,
                     [&](int r, int n) { return n * chunking_->channels + runs_[r].channel; });
  }

  /// The final state of the lane's row, of states (B,S,D), or of those (N,S,D) of its sequences.
  template <int S>
  Vec<B, S> load_final(const T* from, const Sequences& sequences) const {
    return gather<S>(from, [&](int r, int s) {
      const std::int64_t number =
          sequences.offsets ? sequence_at(sequences.offsets, sequences.count, chunking_->steps - 1)
                            : runs_[r].row;
      return state_offset<S>(number, r) + s * chunking_->channels;
    });
  }

  /// The checkpoint at step t of the chunk, for runs that have rows there.
  template <int S>
  Vec<B, S> load_checkpoint(const T* from, std::int64_t t) const {
    return gather<S>(from, [&](int r, int s) { return checkpoint_offset(r, t, S, s); });
  }
  template <int S>
  void store_checkpoint(const Vec<B, S>& state, T* to, std::int64_t t) const {
    scatter<S>(state, to, [&](int r, int s) { return checkpoint_offset(r, t, S, s); });
  }

  /// Finds the block of `view` that starts at step t of the chunks, for load_steps and store_steps.
  void seek(const TensorView& view, std::int64_t t) {
    for (int r = 0; r < run_count_; ++r) {
      base_[r] = view.offset(runs_[r].row, runs_[r].begin + t, runs_[r].channel);
    }
  }

  /// Fills block[(i N + n) W + lane] with component n of the block's step i, first <= i < last and
  /// i < rows.
  template <int N>
  PARARNN_FN void load_steps(const TensorView& view, int first, int last, T* block) const {
    each_piece<N>(view, first, last, [&](std::int64_t at, int length, int i) PARARNN_LAMBDA {
      load_run(view.data, view.storage, at, length, block + i);
    });
  }
  template <int N>
  PARARNN_FN void store_steps(const T* block, const TensorView& view, int first, int last) const {
    if (view.streamed) {
      each_piece<N>(view, first, last, [&](std::int64_t at, int length, int i) PARARNN_LAMBDA {
        stream_run(block + i, length, view.data, view.storage, at);
      });
    } else {
      each_piece<N>(view, first, last, [&](std::int64_t at, int length, int i) PARARNN_LAMBDA {
        store_run(block + i, length, view.data, view.storage, at);
      });
    }
  }

 private:
  static constexpr std::int64_t kNone = -1;

  void fill(T* values, int r, T value) const {
    for (int i = 0; i < runs_[r].length; ++i) values[runs_[r].first + i] = value;
  }

  /// Calls find(r, numbers (S,W)) for the runs that start anew before step i, and replaces their
  /// numbers by those at what it returns, or by zero.
  template <int S, class Find>
  void replace_where_starts(int i, Vec<B, S>& numbers, Find&& find) {
    alignas(B) T lanes[S * W];
    for (int s = 0; s < S; ++s) numbers[s].store(lanes + s * W);
    for (int r = 0; r < run_count_; ++r) {
      if (!(bits_[r] >> i & 1)) continue;
      const T* from = find(r, lanes);
      for (int s = 0; s < S; ++s) {
        for (int k = 0; k < runs_[r].length; ++k) {
          lanes[s * W + runs_[r].first + k] = from ? from[s * chunking_->channels + k] : T(0);
        }
      }
    }
    for (int s = 0; s < S; ++s) numbers[s] = B::load(lanes + s * W);
  }
  template <int S>
  void copy_lanes(const T* lanes, int r, T* to) const {
    for (int s = 0; s < S; ++s) {
      for (int k = 0; k < runs_[r].length; ++k) {
        to[s * chunking_->channels + k] = lanes[s * W + runs_[r].first + k];
      }
    }
  }
  /// Of a run's first channel among states (N,S,D).
  template <int S>
  std::int64_t state_offset(std::int64_t number, int r) const {
    return number * S * chunking_->channels + runs_[r].channel;
  }

  std::int64_t boundary_offset(const Run& run, int components, int n) const {
    return ((run.row * chunking_->chunks + run.chunk) * components + n) * chunking_->channels +
           run.channel;
  }
  std::int64_t checkpoint_offset(int r, std::int64_t t, int components, int s) const {
    if (rows_[r] == 0) return kNone;
    const std::int64_t checkpoint = (runs_[r].begin + t) / kCheckpointInterval;
    const std::int64_t row = runs_[r].row * chunking_->checkpoint_count() + checkpoint;
    return (row * components + s) * chunking_->channels + runs_[r].channel;
  }

  template <int N, class Offset>
  Vec<B, N> gather(const T* from, Offset&& offset) const {
    Vec<B, N> result{};
    for (int n = 0; n < N; ++n) {
      alignas(B) T values[W] = {};
      for (int r = 0; r < run_count_; ++r) {
        const std::int64_t at = offset(r, n);
        for (int i = 0; at != kNone && i < runs_[r].length; ++i) {
          values[runs_[r].first + i] = from[at + i];
        }
      }
      result[n] = B::load(values);
    }
    return result;
  }
  template <int N, class Offset>
  void scatter(const Vec<B, N>& values, T* to, Offset&& offset) const {
    for (int n = 0; n < N; ++n) {
      alignas(B) T lanes[W];
      values[n].store(lanes);
      for (int r = 0; r < run_count_; ++r) {
        const std::int64_t at = offset(r, n);
        for (int i = 0; at != kNone && i < runs_[r].length; ++i) {
          to[at + i] = lanes[runs_[r].first + i];
        }
      }
    }
  }

  /// f(offset in the view, length, index in the block) for each piece of some steps. The length of
  /// a full run is a constant to the compiler.
  template <int N, class F>
  PARARNN_FN void each_piece(const TensorView& view, int first, int last, F&& f) const {
    for (int r = 0; r < run_count_; ++r) {
      const Run& run = runs_[r];
      const int end = last < rows_[r] ? last : rows_[r];
      for (int step = first; step < end; ++step) {
        for (int n = 0; n < N; ++n) {
          const std::int64_t at = base_[r] + step * view.step_stride + n * view.component_stride;
          const int index = (step * N + n) * W + run.first;
          if (run.length == W) {
            f(at, W, index);
          } else {
            f(at, run.length, index);
          }
        }
      }
    }
  }

  const Chunking* chunking_;
  int run_count_;
  std::int64_t longest_;
  Run runs_[W];
  int rows_[W];
  std::int64_t base_[W];
  // Of the block, by run; set where `starts_` is not 0.
  unsigned starts_;
  unsigned bits_[W];
  std::int64_t block_[W];
  int sequence_[W];
};

/// The groups of one task, side by side on the stack, made by make(first lane, lanes), each with
/// the blocks of numbers that it works on.
template <class Walker, int W>
class WalkerList {
 public:
  template <class F>
  WalkerList(int count, F&& make) : size_(0) {
    for (int first = 0; first < count; first += W) {
      new (begin() + size_++) Walker(make(first, count - first < W ? count - first : W));
    }
  }
  Walker* begin() { return reinterpret_cast<Walker*>(bytes_); }
  Walker* end() { return begin() + size_; }

  /// Calls f(walker, first, last) until each walker had the steps of a block. Step by step over all
  /// of them: neighbouring groups lie side by side in memory, which is read and written in its
  /// order.
  template <class F>
  void each_step(F&& f) {
    const int together = size_ == 1 ? kCheckpointInterval : 1;
    for (int step = 0; step < kCheckpointInterval; step += together) {
      for (Walker& walker : *this) f(walker, step, step + together);
    }
  }

  /// Loads a block of N components, that starts at step t of the chunks, for each group.
  template <int N, class Block>
  void load(const TensorView& view, std::int64_t t, Block Walker::*block) {
    for (Walker& walker : *this) walker.group.seek(view, t);
    each_step([&](Walker& walker, int first, int last) {
      walker.group.template load_steps<N>(view, first, last, walker.*block);
    });
  }
  template <int N, class Block>
  void store(Block Walker::*block, const TensorView& view, std::int64_t t) {
    for (Walker& walker : *this) walker.group.seek(view, t);
    each_step([&](Walker& walker, int first, int last) {
      walker.group.template store_steps<N>(walker.*block, view, first, last);
    });
  }

 private:
  alignas(Walker) unsigned char bytes_[sizeof(Walker) * kGroupsPerTask];
  int size_;
};

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
