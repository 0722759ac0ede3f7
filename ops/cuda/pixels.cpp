#include "pixels.h"

#include <torch/csrc/stable/ops.h>

#include "../map_arguments.h"
#include "memory.h"

namespace sbnet::cuda {
namespace {

Index index_of(const char* op, const std::vector<int64_t>& size) {
  const Extent extent = checked_extent(op, size);
  return {nullptr, extent.images, extent.height, extent.width, 0};
}

bool is_list(const Tensor& list, ScalarType type, std::initializer_list<int64_t> shape) {
  bool is = list.dim() == static_cast<int64_t>(shape.size()) && list.scalar_type() == type && list.is_contiguous();
  int64_t dim = 0;
  for (const int64_t size : shape) is = is && list.size(dim++) == size;
  return is;
}

}  // namespace

Pixels pixels_of(const char* op, const char* name, const Lists& lists, const std::vector<int64_t>& size) {
  Index index = index_of(op, size);
  check(lists.size() == 4, op, ": pixels of ", name, " must be 4 lists, got ", lists.size());
  const Tensor &flat = lists[0], &count = lists[1], &words = lists[2], &neighbours = lists[3];
  check(flat.dim() == 1 && is_list(flat, ScalarType::Long, {flat.size(0)}), op, ": positions of ", name,
        " must be contiguous int64 [P], got ", describe(flat));
  index.capacity = flat.size(0);
  check(is_list(count, ScalarType::Int, {2}), op, ": count of ", name, " must be int32 [2], got ", describe(count));
  check(is_list(words, ScalarType::Int, {index.size(), 2}), op, ": words of ", name, " must be contiguous int32 [",
        index.size(), ", 2], got ", describe(words));
  const bool known = neighbours.dim() == 2 && neighbours.size(1) > 0;
  check(is_list(neighbours, ScalarType::Int, {9, known ? index.capacity : 0}), op, ": neighbours of ", name,
        " must be contiguous int32 [9, ", index.capacity, "] or [9, 0], got ", describe(neighbours));
  index.words = static_cast<const Word*>(words.const_data_ptr());
  return {index, flat.const_data_ptr<int64_t>(), count.const_data_ptr<int32_t>(),
          known ? neighbours.const_data_ptr<int32_t>() : nullptr};
}

NewPixels::NewPixels(const char* op, const Tensor& like, const std::vector<int64_t>& size, Tensor count)
    : count_(std::move(count)) {
  Index index = index_of(op, size);
  words_ = torch::stable::new_empty(like, {index.size(), 2}, ScalarType::Int);
  scanned_.words = static_cast<Word*>(words_.mutable_data_ptr());
  index.words = scanned_.words;
  index.capacity = kHighest;
  scanned_.index = index;
  scanned_.count = count_.mutable_data_ptr<int32_t>();
}

void NewPixels::make_room(int64_t capacity, bool neighbours) {
  flat_ = torch::stable::new_empty(words_, {capacity}, ScalarType::Long);
  scanned_.flat = flat_.mutable_data_ptr<int64_t>();
  scanned_.index.capacity = capacity;
  neighbours_ = torch::stable::new_empty(words_, {9, neighbours ? capacity : 0}, ScalarType::Int);
  scanned_.neighbours = neighbours ? neighbours_.mutable_data_ptr<int32_t>() : nullptr;
}

void NewPixels::make_room_for(const Tensor& flat) {
  make_room(flat.size(0), true);
  flat_ = flat;
  scanned_.flat = nullptr;
}

std::vector<int64_t> read_counts(const Tensor& counts, Stream stream) {
  std::vector<int32_t> read(static_cast<size_t>(counts.numel()));
  copy_to_host(read.data(), counts.const_data_ptr(), read.size() * sizeof(int32_t), stream);
  std::vector<int64_t> stored;
  for (size_t i = 0; i < read.size(); i += 2) stored.push_back(read[i]);
  return stored;
}

}  // namespace sbnet::cuda
