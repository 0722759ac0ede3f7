// pixel_index: where kernels look up the pixels of a map, from their positions.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "memory.h"
#include "pixels.h"

namespace sbnet::cuda {
namespace {

// flat int64 [P], increasing, then -1 for rows without a pixel -> count, words, neighbours.
Lists pixel_index(const Tensor& argument, std::vector<int64_t> size) {
  constexpr const char* op = "pixel_index";
  check(argument.dim() == 1 && argument.scalar_type() == ScalarType::Long && argument.size(0) <= kMostCells, op,
        ": flat must be int64 [P], got ", describe(argument));
  const OnDevice device(argument);
  const Tensor flat = torch::stable::contiguous(argument);
  NewPixels map(op, flat, size, torch::stable::new_empty(flat, {2}, ScalarType::Int));
  map.make_room_for(flat);
  set_to_zero(map.scanned().words, static_cast<size_t>(map.scanned().index.size()) * sizeof(Word), device.stream);
  mark_positions(flat.const_data_ptr<int64_t>(), flat.size(0), map.scanned(), device.stream);
  number_words({map.scanned()}, device.stream);
  list_pixels({map.scanned()}, device.stream);
  const Lists lists = map.lists();
  return {lists.begin() + 1, lists.end()};
}

}  // namespace
}  // namespace sbnet::cuda

STABLE_TORCH_LIBRARY_IMPL(SBNET_LIBRARY, SBNET_DEVICE, m) {
  m.impl("pixel_index", TORCH_BOX(&sbnet::cuda::pixel_index));
}
