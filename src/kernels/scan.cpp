#include "kernels/scan.hpp"

namespace pararnn::kernels {
namespace {

void check_device(const Tensor& u) {
  if (u.is_cpu() || u.is_cuda()) return;
  throw Error(fmt::format("scan: u is on {}, but should be on a CPU or a GPU", device_of(u)));
}

}  // namespace

ForwardResults scan_forward(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                            const CellDefinition& cell, const ScanOptions& options,
                            const ForwardRequest& request) {
  check_device(u);
  return (u.is_cuda() ? scan_forward_cuda : scan_forward_cpu)(u, w, h0, cell, options, request);
}

BackwardResults scan_backward(const Tensor& u, const Tensor& w, const Tensor& checkpoints,
                              const Tensor& dy, const Tensor& dhT, const CellDefinition& cell,
                              const ScanOptions& options) {
  check_device(u);
  return (u.is_cuda() ? scan_backward_cuda : scan_backward_cpu)(u, w, checkpoints, dy, dhT, cell,
                                                                options);
}

}  // namespace pararnn::kernels
