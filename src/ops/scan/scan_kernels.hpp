// The internal operators below `scan` (src/kernels/scan_operators.cpp) as functions of C++.
#pragma once

#include "kernels/scan_statistics.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn {

/// fp32 for fp16, bf16 and fp32; fp64 for fp64.
torch::ScalarType arithmetic_type(torch::ScalarType type);

/// Steps from one checkpoint of the state to the next, on a device.
int64_t checkpoint_interval_on(const torch::Device& device);

/// y, hT.
std::tuple<torch::Tensor, torch::Tensor> call_scan(const torch::Tensor& u, const torch::Tensor& w,
                                                   const std::optional<torch::Tensor>& h0,
                                                   const std::string& cell,
                                                   const ScanOptions& options,
                                                   const ScanSequences& sequences = {});

/// y, hT, checkpoints, and whether most columns remembered for longer than the burn-in: one number,
/// or none where it is not known at once.
std::tuple<torch::Tensor, torch::Tensor, torch::Tensor, torch::Tensor> call_scan_forward(
    const torch::Tensor& u, const torch::Tensor& w, const std::optional<torch::Tensor>& h0,
    const std::string& cell, const ScanOptions& options, int64_t checkpoint_interval,
    const ScanSequences& sequences = {});

/// du, dw, dh0. `h0`: where states start anew from it.
std::tuple<torch::Tensor, torch::Tensor, torch::Tensor> call_scan_backward(
    const torch::Tensor& u, const torch::Tensor& w, const torch::Tensor& checkpoints,
    const torch::Tensor& dy, const torch::Tensor& dhT, const std::string& cell,
    const ScanOptions& options, const std::optional<torch::Tensor>& remembers = {},
    const std::optional<torch::Tensor>& h0 = {}, const ScanSequences& sequences = {});

/// y, h.
std::tuple<torch::Tensor, torch::Tensor> call_step(const torch::Tensor& u, const torch::Tensor& w,
                                                   const torch::Tensor& h, const std::string& cell);

/// Whether a tensor has a tangent of forward-mode differentiation.
bool has_tangent(const torch::Tensor& t);

/// The tangent of scan along (du, dw, dh0), of the shapes of u, w and h0: dy (B,T,D) and dhT
/// (B,S,D). Throws Error as find_tangent.
std::tuple<torch::Tensor, torch::Tensor> scan_tangent(
    const torch::Tensor& u, const torch::Tensor& w, const std::optional<torch::Tensor>& h0,
    const torch::Tensor& du, const torch::Tensor& dw, const std::optional<torch::Tensor>& dh0,
    const std::string& cell, const ScanOptions& options, const ScanSequences& sequences = {});

/// scan of tensors of which some have a tangent.
std::tuple<torch::Tensor, torch::Tensor> scan_of_duals(
    const torch::Tensor& u, const torch::Tensor& w, const std::optional<torch::Tensor>& h0,
    const std::string& cell, const ScanOptions& options, const ScanSequences& sequences = {});

}  // namespace pararnn
