#include "kernels/scan_arguments.hpp"

#include <array>
#include <limits>

#include "kernels/scan_statistics.hpp"
#include "pararnn/cpu/problem.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/plan.hpp"

namespace pararnn::kernels {
namespace {

// Sentences are made where they are needed: the checks are part of every call.
template <class... Arguments>
[[noreturn]] void refuse(fmt::format_string<Arguments...> sentence, Arguments&&... arguments) {
  throw Error(fmt::format(sentence, std::forward<Arguments>(arguments)...));
}

/// More than any memory holds, and few enough that no number of bytes overflows.
constexpr int64_t kMostNumbers = int64_t{1} << 46;

bool is_countable(const Tensor& t) {
  int64_t numbers = 1;
  for (const int64_t size : t.sizes()) {
    if (__builtin_mul_overflow(numbers, std::max<int64_t>(size, 1), &numbers)) return false;
  }
  return numbers <= kMostNumbers;
}

/// A tensor of numbers that the engine reads, on u's device.
void check_tensor(const char* name, const Tensor& t, const Tensor& u) {
  const auto type = t.scalar_type();
  if (type != ScalarType::Half && type != ScalarType::BFloat16 && type != ScalarType::Float &&
      type != ScalarType::Double) {
    refuse("scan: {} has dtype {}, but should be float16, bfloat16, float32 or float64", name,
           type_of(t));
  }
  if (!t.is_dense()) {
    refuse("scan: {} is sparse, but should be dense", name);
  }
  if (!on_same_device(t, u)) {
    refuse("scan: {} is on {}, but u is on {}; move one of them", name, device_of(t), device_of(u));
  }
}

void check_shape(const char* name, const Tensor& t, Shape expected, const Tensor& u,
                 const CellDefinition& cell) {
  if (!std::ranges::equal(t.sizes(), expected)) {
    refuse("scan: {} has shape {}, but for the cell {} and u of shape {} it should be {}", name,
           shape_of(t), cell.name, shape_of(u), text_of({expected.begin(), expected.size()}));
  }
}

void check_type(const char* name, const Tensor& t, ScalarType expected, const Tensor& u) {
  if (t.scalar_type() == expected) return;
  refuse("scan: {} has dtype {}, but for u of dtype {} it should be {}", name, type_of(t),
         type_of(u), torch::headeronly::toString(expected));
}

/// The tensor itself, borrowed, if neighbours in the last dimension are neighbours in memory, or a
/// copy.
Tensor with_neighbouring_channels(const char* name, const Tensor& t) {
  return t.size(-1) == 1 || t.stride(-1) == 1 ? t.borrowed() : contiguous(name, t, t.scalar_type());
}

/// Checks where states start anew. Offsets are read where the host has them.
void check_sequences(const SequenceTensors& sequences, const Tensor& u, const ScanSizes& s) {
  const auto check_place = [&](const char* name, const Tensor& t) {
    if (!t.is_dense()) refuse("scan: {} is sparse, but should be dense", name);
    if (on_same_device(t, u)) return;
    refuse("scan: {} is on {}, but u is on {}; move one of them", name, device_of(t), device_of(u));
  };
  if (sequences.cu_seqlens && sequences.reset) {
    refuse("scan: cu_seqlens and reset are both given; give one of them");
  }
  if (const auto& reset = sequences.reset) {
    check_place("reset", *reset);
    if (reset->scalar_type() != ScalarType::Bool) {
      refuse("scan: reset has dtype {}, but should be bool", type_of(*reset));
    }
    if (reset->dim() != 2 || reset->size(0) != s.batch || reset->size(1) != s.steps) {
      refuse("scan: reset has shape {}, but for u of shape {} it should be {}", shape_of(*reset),
             shape_of(u), text_of(std::array{s.batch, s.steps}));
    }
  }
  if (!sequences.cu_seqlens) return;
  const Tensor& offsets = *sequences.cu_seqlens;
  check_place("cu_seqlens", offsets);
  if (offsets.scalar_type() != ScalarType::Int) {
    refuse("scan: cu_seqlens has dtype {}, but should be int32", type_of(offsets));
  }
  if (offsets.dim() != 1 || offsets.size(0) < 2) {
    refuse("scan: cu_seqlens has shape {}, but should be (N+1), where N sequences begin and end",
           shape_of(offsets));
  }
  if (s.batch != 1) {
    refuse("scan: u has shape {}, but with cu_seqlens it should be one row, B = 1", shape_of(u));
  }
  if (s.steps > std::numeric_limits<int>::max()) {
    refuse("scan: u has {} steps, more than cu_seqlens can count", s.steps);
  }
  if (!u.is_cpu()) return;
  const Tensor read = contiguous("cu_seqlens", offsets, ScalarType::Int);
  const int* at = read.const_data_ptr<int>();
  if (at[0] != 0) refuse("scan: cu_seqlens begins with {}, but should begin with 0", at[0]);
  for (int64_t n = 0; n < s.sequences; ++n) {
    if (at[n] > at[n + 1]) {
      refuse("scan: cu_seqlens falls from {} to {} at {}, but should never fall", at[n], at[n + 1],
             n + 1);
    }
  }
  if (at[s.sequences] != s.steps) {
    refuse("scan: cu_seqlens ends with {}, but should end with {}, the steps of u", at[s.sequences],
           s.steps);
  }
}

/// The tensors themselves, or contiguous copies.
SequenceTensors as_read(const SequenceTensors& sequences) {
  const auto read = [](const char* name, const std::optional<Tensor>& t) {
    return t ? std::make_optional(contiguous(name, *t, t->scalar_type())) : std::nullopt;
  };
  return {read("cu_seqlens", sequences.cu_seqlens), read("reset", sequences.reset)};
}

/// An uninitialised tensor of u's shape and, where it can be, strides.
Tensor gradient_of_input(const Tensor& u) {
  if (u.is_contiguous()) return make_tensor("du", u.sizes(), u.scalar_type(), u);
  try {
    Tensor like_u = torch::stable::empty_like(u);
    return like_u.size(-1) == 1 || like_u.stride(-1) == 1
               ? like_u
               : make_tensor("du", u.sizes(), u.scalar_type(), u);
  } catch (const std::runtime_error&) {
    refuse("scan: out of memory for du of shape {} on {}", shape_of(u), device_of(u));
  }
}

}  // namespace

Strides strides_of(const Tensor& t, int axes) {
  const int64_t dims = t.dim();
  return {.batch = t.stride(0),
          .step = axes == 2 ? t.stride(1) : 0,
          .component = dims >= axes + 2 ? t.stride(-2) : 0,
          .head = dims == axes + 3 ? t.stride(axes) : 0,
          .head_width = t.size(-1)};
}

ScalarType arithmetic_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

double tolerance_for(double wanted, ScalarType arithmetic) {
  if (!(wanted >= 0 && wanted <= kLargestTolerance)) {
    refuse("scan: tolerance is {}, but should be above 0, up to {}, or 0 for the default", wanted,
           kLargestTolerance);
  }
  if (wanted > 0) return wanted;
  return arithmetic == ScalarType::Double ? kDefaultTolerance<double> : kDefaultTolerance<float>;
}

int64_t checkpoint_interval_on(const Tensor& t) {
  return t.is_cuda() ? cuda::kCheckpointInterval : cpu::kCheckpointInterval;
}

int64_t checkpoint_count(int64_t steps, int64_t interval) {
  return interval == 0 ? 0 : (steps + interval - 1) / interval;
}

Sequences sequences_of(const SequenceTensors& tensors) {
  Sequences sequences;
  if (tensors.cu_seqlens) {
    sequences.offsets = tensors.cu_seqlens->const_data_ptr<int>();
    sequences.count = tensors.cu_seqlens->size(0) - 1;
  }
  if (tensors.reset) {
    sequences.reset = static_cast<const unsigned char*>(tensors.reset->const_data_ptr());
  }
  return sequences;
}

ScanSizes check_scan_arguments(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                               const CellDefinition& cell, int axes,
                               const SequenceTensors& sequences) {
  check_tensor("u", u, u);
  check_tensor("w", w, u);
  if (h0) check_tensor("h0", *h0, u);
  const int64_t dims = u.dim();
  if (dims != axes + 2 && dims != axes + 3) {
    const char* t = axes == 2 ? "T," : "";
    refuse("{}: u has shape {}, but should be (B,{}U,D), or (B,{}H,U,D/H) for H heads",
           axes == 2 ? "scan" : "step", shape_of(u), t, t);
  }
  if (!is_countable(u)) {
    refuse("scan: u has shape {}, more numbers than any memory holds", shape_of(u));
  }
  const int64_t heads = dims == axes + 3 ? u.size(axes) : 1;
  const ScanSizes s{.batch = u.size(0),
                    .steps = axes == 2 ? u.size(1) : 1,
                    .inputs = u.size(-2),
                    .channels = heads * u.size(-1),
                    .heads = heads,
                    .state = cell.state,
                    .params = cell.params,
                    .sequences = sequences.cu_seqlens && sequences.cu_seqlens->dim() == 1
                                     ? sequences.cu_seqlens->size(0) - 1
                                     : u.size(0)};
  if (s.inputs != cell.inputs) {
    refuse("scan: u has shape {}, {} inputs a channel, but the cell {} takes U = {}", shape_of(u),
           s.inputs, cell.name, cell.inputs);
  }
  check_shape("w", w, {s.params, s.channels}, u, cell);
  if (sequences.cu_seqlens || sequences.reset) check_sequences(sequences, u, s);
  if (h0) check_shape("h0", *h0, {s.sequences, s.state, s.channels}, u, cell);
  return s;
}

ForwardTensors forward_tensors(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                               const CellDefinition& cell, const ForwardRequest& request) {
  const ScanSizes s = check_scan_arguments(u, w, h0, cell, request.axes, request.sequences);
  const auto type = u.scalar_type(), arithmetic = arithmetic_type(type);
  std::optional<Tensor> checkpoints;
  if (request.checkpoint_interval) {
    const int64_t interval = *request.checkpoint_interval, of_device = checkpoint_interval_on(u);
    // Shapes may be asked for any device.
    if (interval != 0 && interval != of_device &&
        !(is_meta(u) && interval == cuda::kCheckpointInterval)) {
      refuse("scan: checkpoint_interval is {}, but should be {} on {}, or 0 for no checkpoints",
             interval, of_device, device_of(u));
    }
    checkpoints = make_tensor("checkpoints",
                              {s.batch, checkpoint_count(s.steps, interval), s.state, s.channels},
                              arithmetic, u);
  }
  ForwardTensors tensors{s,
                         arithmetic,
                         with_neighbouring_channels("u", u),
                         contiguous("w", w, arithmetic),
                         h0 ? std::make_optional(contiguous("h0", *h0, arithmetic)) : std::nullopt,
                         request.axes == 2
                             ? make_tensor("y", {s.batch, s.steps, s.channels}, type, u)
                             : make_tensor("y", {s.batch, s.channels}, type, u),
                         make_tensor("hT", {s.sequences, s.state, s.channels}, arithmetic, u),
                         std::move(checkpoints),
                         as_read(request.sequences)};
  if (s.batch * s.steps * s.channels == 0) {
    h0 ? copy(*tensors.h0, tensors.hT) : fill_with_zeros(tensors.hT);
    record_forward_statistics({});
  }
  return tensors;
}

BackwardTensors backward_tensors(const Tensor& u_in, const Tensor& w, const Tensor& checkpoints,
                                 const Tensor& dy, const Tensor& dhT, const CellDefinition& cell,
                                 const BackwardRequest& request) {
  const ScanSizes s = check_scan_arguments(u_in, w, request.h0, cell, 2, request.sequences);
  const auto arithmetic = arithmetic_type(u_in.scalar_type());
  check_tensor("checkpoints", checkpoints, u_in);
  check_tensor("dy", dy, u_in);
  check_tensor("dhT", dhT, u_in);
  int64_t count = checkpoint_count(s.steps, checkpoint_interval_on(u_in));
  // Shapes may be asked for any device.
  if (is_meta(u_in) && checkpoints.dim() == 4 && checkpoints.size(1) != count) {
    count = checkpoint_count(s.steps, cuda::kCheckpointInterval);
  }
  check_shape("checkpoints", checkpoints, {s.batch, count, s.state, s.channels}, u_in, cell);
  check_shape("dy", dy, {s.batch, s.steps, s.channels}, u_in, cell);
  check_shape("dhT", dhT, {s.sequences, s.state, s.channels}, u_in, cell);
  check_type("checkpoints", checkpoints, arithmetic, u_in);
  check_type("dy", dy, u_in.scalar_type(), u_in);
  Tensor u = with_neighbouring_channels("u", u_in);
  BackwardTensors tensors{
      s,
      arithmetic,
      u,
      contiguous("w", w, arithmetic),
      contiguous("checkpoints", checkpoints, arithmetic),
      with_neighbouring_channels("dy", dy),
      contiguous("dhT", dhT, arithmetic),
      gradient_of_input(u),
      make_tensor("dw", {s.params, s.channels}, arithmetic, u),
      make_tensor("dh0", {s.sequences, s.state, s.channels}, arithmetic, u),
      request.h0 ? std::make_optional(contiguous("h0", *request.h0, arithmetic)) : std::nullopt,
      as_read(request.sequences)};
  if (s.batch * s.steps * s.channels == 0) {
    fill_with_zeros(tensors.dw);
    copy(tensors.dhT, tensors.dh0);
    record_backward_statistics({});
  }
  return tensors;
}

}  // namespace pararnn::kernels
