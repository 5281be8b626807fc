// The state-space recurrence on a GPU (ssd.hpp): what stands between its products, each function of
// ssd_parts.hpp a kernel. All of them move more bytes than they compute, most of all the masked
// scores, (B,L,H,Q,Q): Q numbers for each step and head, where x has P.
//
// Of a chunk and a head ("a matrix") a thread has a pack of numbers next to each other.
#pragma once

#include "ops/rows_kernel.hpp"
#include "ops/ssd/ssd_problem.hpp"

namespace pararnn::ops {

/// exp(x) for x <= 0, to a few units of the sixth digit; 0 for -∞.
inline constexpr float kBinaryLog = 1.442695041f;  // of e
PARARNN_DEVICE_FN float decay_of(float log) { return special_exp2(log * kBinaryLog); }

/// The decays of one head in one chunk.
struct SsdChunk {
  const float *step, *log;
  const int* segment;
  int last;

  PARARNN_DEVICE_FN SsdChunk(const SsdExtent& extent, const SsdDecays& decays, Int matrix)
      : step(decays.step + matrix * extent.chunk),
        log(decays.log + matrix * extent.chunk),
        segment(decays.segment ? decays.segment + matrix / extent.heads * extent.chunk : nullptr),
        last(extent.chunk - 1) {}

  PARARNN_DEVICE_FN float from_start(int i) const {
    return segment && segment[i] != 0 ? 0.0f : decay_of(log[i]);
  }
  PARARNN_DEVICE_FN float to_end(int j) const {
    return segment && segment[j] != segment[last] ? 0.0f : decay_of(log[last] - log[j]);
  }
};

/// The sum over this lane and those before it.
PARARNN_DEVICE_FN float sum_so_far(float mine) {
  const int lane = threadIdx.x % kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const float before = __shfl_up_sync(0xffffffffu, mine, distance);
    if (lane >= distance) mine += before;
  }
  return mine;
}

/// A warp has a matrix.
__global__ void __launch_bounds__(kSsdThreads)
    ssd_decays(const __grid_constant__ SsdDecaysOf problem) {
  const SsdExtent& extent = problem.extent;
  const Int matrix = Int(blockIdx.x) * kSsdWarps + threadIdx.x / kWarp;
  if (matrix >= extent.matrices()) return;
  const int lane = threadIdx.x % kWarp;
  const int head = static_cast<int>(matrix % extent.heads);
  const Int chunk = matrix / extent.heads;
  const Int first = chunk % extent.chunks * extent.chunk;
  const float* dt =
      problem.dt + chunk / extent.chunks * problem.batch_stride + head * problem.head_stride;
  const float a = problem.a[head];
  float sum = 0;
  for (int begin = 0; begin < extent.chunk; begin += kWarp) {
    const int i = begin + lane;
    const Int t = first + i;
    const bool there = i < extent.chunk;
    const float step = there && t < extent.steps ? dt[t * problem.step_stride] : 0.0f;
    const float log = sum + sum_so_far(step * a);
    if (there) {
      problem.step[matrix * extent.chunk + i] = step;
      problem.log[matrix * extent.chunk + i] = log;
    }
    sum = __shfl_sync(0xffffffffu, log, kWarp - 1);
  }
}

/// Packs of 8 scores in rows of a chunk.
template <int kChunk>
struct SsdScores {
  static constexpr int kWidth = 8, kPacks = kChunk / kWidth;
  using Values = Vec<float, kWidth>;
};

/// A block has a matrix.
template <class Storage, int kChunk>
__global__ void __launch_bounds__(kSsdThreads)
    ssd_masked(const __grid_constant__ SsdMasked problem) {
  using Scores = SsdScores<kChunk>;
  using Values = typename Scores::Values;
  constexpr int kWidth = Scores::kWidth, kPacks = Scores::kPacks;
  const SsdExtent& extent = problem.extent;
  const Int matrix = blockIdx.x;
  const SsdChunk chunk(extent, problem.decays, matrix);
  const Storage* scores =
      static_cast<const Storage*>(problem.scores) +
      matrix / extent.heads_of_group() * (kChunk * kChunk);  // heads of a group are neighbours
  Storage* masked = static_cast<Storage*>(problem.masked) + matrix * (kChunk * kChunk);
  for (int n = threadIdx.x; n < kChunk * kPacks; n += kSsdThreads) {
    const int i = n / kPacks, j = n % kPacks * kWidth;
    Values result{};
    if (j <= i) {
      const Values score = load_channels<kWidth>(scores + i * kChunk + j);
      const Values log = load_channels<kWidth>(chunk.log + j);
      const Values step = load_channels<kWidth>(chunk.step + j);
      const float mine = chunk.log[i];
      static_for<kWidth>([&](auto k) {
        if (j + k > i || (chunk.segment && chunk.segment[j + k] != chunk.segment[i])) return;
        result[k] = score[k] * decay_of(mine - log[k]) * step[k];
      });
    }
    store_channels(result, masked + i * kChunk + j);
  }
}

/// What a thread has of (B,T,H,P): kWidth channels of a head at kSsdSteps steps of a chunk.
template <int kWidth>
struct SsdPiece {
  bool there;
  int head, channel, first;  // the first of its steps, in the chunk
  Int batch, step, matrix, by_head, by_group;

  PARARNN_DEVICE_FN explicit SsdPiece(const SsdExtent& extent) {
    const int packs = extent.channels / kWidth;
    const int blocks = extent.blocks_of_channels(kWidth), pieces = extent.chunk / kSsdSteps;
    const int number = static_cast<int>(blockIdx.x % blocks) * kSsdThreads + threadIdx.x;
    const Int piece = blockIdx.x / blocks, chunk = piece / pieces;
    there = number < extent.heads * packs;
    head = there ? number / packs : 0;
    channel = there ? number % packs * kWidth : 0;
    first = static_cast<int>(piece % pieces) * kSsdSteps;
    batch = chunk / extent.chunks;
    step = chunk % extent.chunks * extent.chunk + first;
    matrix = chunk * extent.heads + head;
    by_head = (matrix * extent.chunk + first) * extent.channels + channel;
    const int heads = extent.heads_of_group(), group = head / heads;
    by_group = (((chunk * extent.groups + group) * extent.chunk + first) * heads + head % heads) *
                   extent.channels +
               channel;
  }
  template <class Storage>
  PARARNN_DEVICE_FN Storage* at(const SsdSteps& of) const {
    return static_cast<Storage*>(of.data) + batch * of.batch_stride + step * of.step_stride +
           head * of.head_stride + channel;
  }
};

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kSsdThreads) ssd_pack(const __grid_constant__ SsdPack problem) {
  const SsdExtent& extent = problem.extent;
  const SsdPiece<kWidth> piece(extent);
  if (!piece.there) return;
  const SsdChunk chunk(extent, problem.decays, piece.matrix);
  const Storage* x = piece.template at<const Storage>(problem.x);
  Storage* by_head = static_cast<Storage*>(problem.by_head) + piece.by_head;
  Storage* scaled = static_cast<Storage*>(problem.scaled) + piece.by_group;
  const Int group_step = Int(extent.heads_of_group()) * extent.channels;
#pragma unroll 4
  for (int n = 0; n < kSsdSteps; ++n) {
    const int i = piece.first + n;
    Vec<float, kWidth> values{};
    if (piece.step + n < extent.steps) {
      values = load_channels<kWidth>(x + n * problem.x.step_stride);
    }
    if (problem.by_head) store_channels(values, by_head + n * extent.channels);
    const float factor =
        problem.scale == SsdScale::kToEnd ? chunk.to_end(i) * chunk.step[i] : chunk.from_start(i);
    static_for<kWidth>([&](auto k) { values[k] *= factor; });
    store_channels(values, scaled + n * group_step);
  }
}

/// What a thread has of the states (B,L,H,P,N): a pack of one head, in all chunks. A warp is of one
/// head.
template <int kWidth>
struct SsdStatePiece {
  bool there;  // or nothing, in a warp that takes part
  bool warp_there;
  int head, warp;  // the warp's number in the head
  Int batch, offset, of_head, stride;

  PARARNN_DEVICE_FN explicit SsdStatePiece(const SsdExtent& extent) {
    const int warps = extent.warps_of_state(kWidth), size = extent.channels * extent.state;
    const Int number = Int(blockIdx.x) * kSsdWarps + threadIdx.x / kWarp;
    const Int row = number / warps;
    warp = static_cast<int>(number % warps);
    warp_there = row < extent.batch * extent.heads;
    batch = row / extent.heads;
    head = static_cast<int>(row % extent.heads);
    const int in_head = (warp * kWarp + static_cast<int>(threadIdx.x % kWarp)) * kWidth;
    there = warp_there && in_head < size;
    of_head = row * size + in_head;  // in (B,H,P,N)
    offset = (batch * extent.chunks * extent.heads + head) * size + in_head;
    stride = Int(extent.heads) * size;  // from chunk to chunk
  }
  PARARNN_DEVICE_FN Int matrix(const SsdExtent& extent, Int chunk) const {
    return (batch * extent.chunks + chunk) * extent.heads + head;
  }
};

/// Chunks of which a thread has the numbers on their way at once.
inline constexpr int kSsdAhead = 4;

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kSsdThreads, 5)
    ssd_carry(const __grid_constant__ SsdCarry problem) {
  constexpr int kPack = kWidth * sizeof(Storage) > 16 ? 16 / sizeof(Storage) : kWidth;
  static_assert(kPack == kWidth, "a pack is one access");
  const SsdExtent& extent = problem.extent;
  const SsdStatePiece<kWidth> piece(extent);
  if (!piece.there) return;
  Storage* states = static_cast<Storage*>(problem.states) + piece.offset;
  struct Coming {
    cuda::Pack<Storage, kWidth> added;
    float decay;
  } coming[kSsdAhead] = {};
  const auto fetch = [&](Coming& to, Int chunk) {
    if (chunk >= extent.chunks) return;
    to.added = cuda::load_pack<Storage, kWidth>(states + chunk * piece.stride);
    to.decay =
        SsdChunk(extent, problem.decays, piece.matrix(extent, chunk)).from_start(extent.chunk - 1);
  };
  static_for<kSsdAhead>([&](auto k) { fetch(coming[k], k); });
  Vec<float, kWidth> h = load_channels<kWidth>(problem.h0 + piece.of_head);
  for (Int chunk = 0; chunk < extent.chunks; chunk += kSsdAhead) {
    static_for<kSsdAhead>([&](auto k) {
      if (chunk + k >= extent.chunks) return;
      const Vec<float, kWidth> added = coming[k].added.unpack();
      const float decay = coming[k].decay;
      fetch(coming[k], chunk + k + kSsdAhead);
      store_channels(h, states + (chunk + k) * piece.stride);
      static_for<kWidth>([&](auto i) { h[i] = decay * h[i] + added[i]; });
    });
  }
  store_channels(h, problem.hT + piece.of_head);
}

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kSsdThreads) ssd_join(const __grid_constant__ SsdJoin problem) {
  const SsdExtent& extent = problem.extent;
  const SsdPiece<kWidth> piece(extent);
  if (!piece.there) return;
  const SsdChunk chunk(extent, problem.decays, piece.matrix);
  const Storage* within = static_cast<const Storage*>(problem.within) + piece.by_head;
  const Storage* across = static_cast<const Storage*>(problem.across) + piece.by_group;
  const Storage* x = piece.template at<const Storage>(problem.x);
  Storage* y = piece.template at<Storage>(problem.y);
  const Int group_step = Int(extent.heads_of_group()) * extent.channels;
  const float d = problem.d[piece.head];
#pragma unroll 4
  for (int n = 0; n < kSsdSteps; ++n) {
    if (piece.step + n >= extent.steps) return;
    Vec<float, kWidth> result = load_channels<kWidth>(within + n * extent.channels);
    const auto from_before = load_channels<kWidth>(across + n * group_step);
    const auto inputs = load_channels<kWidth>(x + n * problem.x.step_stride);
    const float decay = chunk.from_start(piece.first + n);
    static_for<kWidth>([&](auto k) { result[k] += decay * from_before[k] + d * inputs[k]; });
    store_channels(result, y + n * problem.y.step_stride);
  }
}

/// A block has some rows of the matrices of a group, and goes through its heads: the gradient of
/// the scores, which they share, is added up in registers.
template <class Storage, int kChunk>
__global__ void __launch_bounds__(ssd_masked_threads(kChunk))
    ssd_masked_backward(const __grid_constant__ SsdMaskedBackward problem) {
  using Scores = SsdScores<kChunk>;
  using Values = typename Scores::Values;
  constexpr int kWidth = Scores::kWidth, kPacks = Scores::kPacks;
  constexpr int kThreads = ssd_masked_threads(kChunk), kTiles = ssd_masked_tiles(kChunk);
  constexpr int kWarps = kThreads / kWarp, kRows = kThreads / kPacks;
  using Sums = float[2][kWarps][kChunk];
  PARARNN_SHARED(Sums, sums);
  const SsdExtent& extent = problem.extent;
  const int tile = static_cast<int>(blockIdx.x % kTiles);
  const Int group = blockIdx.x / kTiles;  // of all chunks
  const int heads = extent.heads_of_group();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const int i = tile * kRows + thread / kPacks, j = thread % kPacks * kWidth;
  const bool there = j <= i;
  const int at = i * kChunk + j;
  Values scores{}, dscores{};
  if (there) {
    scores = load_channels<kWidth>(static_cast<const Storage*>(problem.scores) +
                                   group * (kChunk * kChunk) + at);
  }
  bool counts[kWidth];  // not behind i, and of its segment
  const int* segment =
      problem.decays.segment ? problem.decays.segment + group / extent.groups * kChunk : nullptr;
  static_for<kWidth>(
      [&](auto k) { counts[k] = j + k <= i && (!segment || segment[j + k] == segment[i]); });
  Storage* gradients = static_cast<Storage*>(problem.gradient) + at;
  const auto fetch = [&](int head) {
    Values result{};
    if (there && head < heads) {
      result = load_channels<kWidth>(gradients + (group * heads + head) * (kChunk * kChunk));
    }
    return result;
  };
  Values coming = fetch(0);
  for (int head = 0; head < heads; ++head) {
    const Int matrix = group * heads + head;
    const Values gradient = coming;
    coming = fetch(head + 1);
    const SsdChunk chunk(extent, problem.decays, matrix);
    Values masked{}, before{};
    float row = 0, own = 0;
    if (there) {
      const Values log = load_channels<kWidth>(chunk.log + j);
      const Values step = load_channels<kWidth>(chunk.step + j);
      const float mine = chunk.log[i];
      static_for<kWidth>([&](auto k) {
        if (!counts[k]) return;
        const float decay = decay_of(mine - log[k]);
        const float through = gradient[k] * decay, product = through * scores[k];
        masked[k] = scores[k] * decay * step[k];
        dscores[k] += through * step[k];
        if (j + k == i) {
          own = product;
        } else {
          before[k] = product;
          row += product * step[k];
        }
      });
    }
    store_channels(masked, gradients + matrix * (kChunk * kChunk));
    // A row is of kPacks neighbouring lanes; columns are kPacks lanes apart.
    for (int distance = 1; distance < kPacks; distance *= 2) {
      row += __shfl_xor_sync(0xffffffffu, row, distance);
    }
    if (j == 0) problem.rows[matrix * kChunk + i] = row;
    if (there && i < j + kWidth) problem.own[matrix * kChunk + i] = own;
    static_for<kWidth>([&](auto k) {
      for (int distance = kPacks; distance < kWarp; distance *= 2) {
        before[k] += __shfl_xor_sync(0xffffffffu, before[k], distance);
      }
    });
    const int turn = head % 2;  // the sums of the head before this one have been read
    if (thread % kWarp < kPacks) {
      static_for<kWidth>([&](auto k) { sums[turn][warp][j + k] = before[k]; });
    }
    __syncthreads();
    float* columns = problem.columns + (tile * extent.matrices() + matrix) * kChunk;
    for (int column = thread; column < kChunk; column += kThreads) {
      float sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += sums[turn][w][column];
      columns[column] = sum;
    }
  }
  store_channels(dscores, static_cast<Storage*>(problem.dscores) + group * (kChunk * kChunk) + at);
}

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kSsdThreads, 4)
    ssd_carry_backward(const __grid_constant__ SsdCarryBackward problem) {
  const SsdExtent& extent = problem.extent;
  const SsdStatePiece<kWidth> piece(extent);
  if (!piece.warp_there) return;
  Storage* gradients = static_cast<Storage*>(problem.gradient) + piece.offset;
  const Storage* entering = static_cast<const Storage*>(problem.entering) + piece.offset;
  struct Coming {
    cuda::Pack<Storage, kWidth> gradient, entering;
    float decay;
  } coming[kSsdAhead] = {};
  // The chunk that is `back` from the last.
  const auto fetch = [&](Coming& to, Int back) {
    const Int chunk = extent.chunks - 1 - back;
    if (chunk < 0 || !piece.there) return;
    to.gradient = cuda::load_pack<Storage, kWidth>(gradients + chunk * piece.stride);
    to.entering = cuda::load_pack<Storage, kWidth>(entering + chunk * piece.stride);
    to.decay =
        SsdChunk(extent, problem.decays, piece.matrix(extent, chunk)).from_start(extent.chunk - 1);
  };
  static_for<kSsdAhead>([&](auto k) { fetch(coming[k], k); });
  const int warps = extent.warps_of_state(kWidth);
  Vec<float, kWidth> after{};
  if (piece.there) after = load_channels<kWidth>(problem.dhT + piece.of_head);
  for (Int back = 0; back < extent.chunks; back += kSsdAhead) {
    static_for<kSsdAhead>([&](auto k) {
      const Int chunk = extent.chunks - 1 - back - k;
      if (chunk < 0) return;
      const Vec<float, kWidth> local = coming[k].gradient.unpack();
      const Vec<float, kWidth> before = coming[k].entering.unpack();
      const float decay = coming[k].decay;
      fetch(coming[k], back + k + kSsdAhead);
      float product = 0;
      static_for<kWidth>([&](auto i) { product += piece.there ? after[i] * before[i] : 0.0f; });
      product = sum_in_warp(product);
      if (threadIdx.x % kWarp == 0) {
        problem.decay[piece.matrix(extent, chunk) * warps + piece.warp] = product;
      }
      if (piece.there) store_channels(after, gradients + chunk * piece.stride);
      static_for<kWidth>([&](auto i) { after[i] = decay * after[i] + local[i]; });
    });
  }
  if (piece.there) store_channels(after, problem.dh0 + piece.of_head);
}

/// kLanes neighbouring lanes have a head, a pack each.
template <class Storage, int kWidth, int kLanes>
__global__ void __launch_bounds__(kSsdThreads)
    ssd_join_backward(const __grid_constant__ SsdJoinBackward problem) {
  const SsdExtent& extent = problem.extent;
  const SsdPiece<kWidth> piece(extent);
  const SsdChunk chunk(extent, problem.decays, piece.matrix);
  const Storage* within = static_cast<const Storage*>(problem.within) + piece.by_head;
  const Storage* arriving = static_cast<const Storage*>(problem.arriving) + piece.by_group;
  const Storage* across = static_cast<const Storage*>(problem.across) + piece.by_group;
  const Storage* x = piece.template at<const Storage>(problem.x);
  const Storage* dy = piece.template at<const Storage>(problem.dy);
  Storage* dx = piece.template at<Storage>(problem.dx);
  const Int group_step = Int(extent.heads_of_group()) * extent.channels;
  const float d = problem.d[piece.head];
#pragma unroll 2
  for (int n = 0; n < kSsdSteps; ++n) {
    const int i = piece.first + n;
    Vec<float, 3> dots{};
    if (piece.there && piece.step + n < extent.steps) {
      Vec<float, kWidth> result = load_channels<kWidth>(within + n * extent.channels);
      const auto arrives = load_channels<kWidth>(arriving + n * group_step);
      const auto came = load_channels<kWidth>(across + n * group_step);
      const auto inputs = load_channels<kWidth>(x + n * problem.x.step_stride);
      const auto gradient = load_channels<kWidth>(dy + n * problem.dy.step_stride);
      const float factor = chunk.to_end(i) * chunk.step[i];
      static_for<kWidth>([&](auto k) {
        dots[0] += gradient[k] * came[k];
        dots[1] += inputs[k] * arrives[k];
        dots[2] += gradient[k] * inputs[k];
        result[k] += factor * arrives[k] + d * gradient[k];
      });
      store_channels(result, dx + n * problem.dx.step_stride);
    }
    for (int distance = 1; distance < kLanes; distance *= 2) {
      static_for<3>([&](auto k) { dots[k] += __shfl_xor_sync(0xffffffffu, dots[k], distance); });
    }
    if (piece.there && piece.channel == 0) {
      const Int to = piece.matrix * extent.chunk + i;
      problem.of_across[to] = dots[0];
      problem.of_arriving[to] = dots[1];
      problem.own[to] = dots[2];
    }
  }
}

/// A warp has a matrix, and goes through its steps from the last to the first.
__global__ void __launch_bounds__(kSsdThreads)
    ssd_decays_backward(const __grid_constant__ SsdDecaysBackward problem) {
  const SsdExtent& extent = problem.extent;
  const Int matrix = Int(blockIdx.x) * kSsdWarps + threadIdx.x / kWarp;
  if (matrix >= extent.matrices()) return;
  const int lane = threadIdx.x % kWarp;
  const Int chunk_number = matrix / extent.heads;
  const int head = static_cast<int>(matrix % extent.heads);
  const SsdChunk chunk(extent, problem.decays, matrix);
  const Int base = matrix * extent.chunk;
  const auto arriving_at = [&](int i) { return chunk.to_end(i) * problem.of_arriving[base + i]; };
  // The decay of the whole chunk is in all that is added at its steps, and in what goes through.
  float whole = 0, skip = 0;
  for (int i = lane; i < extent.chunk; i += kWarp) {
    whole += arriving_at(i) * chunk.step[i];
    skip += problem.of_own[base + i];
  }
  float through = 0;
  for (int n = lane; n < problem.decay_parts; n += kWarp) {
    through += problem.decay[matrix * problem.decay_parts + n];
  }
  // Of the decays from step i on: of its part dt_t a, which is in all from step t on.
  float later = sum_in_warp(whole) + chunk.from_start(chunk.last) * sum_in_warp(through);
  float of_a = 0;
  for (int end = extent.chunk; end > 0; end -= kWarp) {
    const int i = end - 1 - lane;
    float log = 0, columns = 0, arriving = 0;
    if (i >= 0) {
      for (int part = 0; part < problem.column_parts; ++part) {
        columns += problem.columns[(part * extent.matrices() + matrix) * extent.chunk + i];
      }
      arriving = arriving_at(i);
      log = problem.rows[base + i] + chunk.from_start(i) * problem.of_across[base + i] -
            (columns + arriving) * chunk.step[i];
    }
    const float part = later + sum_so_far(log);
    later = __shfl_sync(0xffffffffu, part, kWarp - 1);
    if (i < 0) continue;
    of_a += part * chunk.step[i];
    const Int t = chunk_number % extent.chunks * extent.chunk + i;
    if (t < extent.steps) {
      problem.ddt[(chunk_number / extent.chunks * extent.steps + t) * extent.heads + head] =
          part * problem.a[head] + columns + problem.own[base + i] + arriving;
    }
  }
  of_a = sum_in_warp(of_a);
  skip = sum_in_warp(skip);
  if (lane == 0) {
    float* sums = problem.sums + chunk_number * 2 * extent.heads + head;
    sums[0] = of_a;
    sums[extent.heads] = skip;
  }
}

}  // namespace pararnn::ops
