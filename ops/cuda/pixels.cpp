#include "pixels.h"

namespace sbnet::cuda {
namespace {

void check_size(const char* op, const std::vector<int64_t>& size) {
  check(size.size() == 3, op, ": size must be (N, H, W), got ", size.size(), " integers");
  int64_t pixels = 1;
  for (const int64_t side : size) {
    check(side >= 0 && side <= kHighest && pixels * side <= kHighest, op, ": size must be at most ", kHighest,
          " pixels, got ", size[0], " x ", size[1], " x ", size[2]);
    pixels *= side;
  }
}

}  // namespace

PixelLists pixels_of(const char* op, const char* name, const std::vector<Tensor>& lists,
                     const std::vector<int64_t>& size, const Tensor& like) {
  check_size(op, size);
  check(lists.size() == 4, op, ": pixels of ", name, " must be 4 lists, got ", lists.size());
  const int64_t capacity = lists[0].numel(), words = size[0] * size[1] * divide_up(size[2], 32);
  const auto is = [&](const Tensor& list, ScalarType type, std::initializer_list<int64_t> sizes) {
    bool right = list.scalar_type() == type && list.is_contiguous() && list.device() == like.device() &&
                 list.dim() == static_cast<int64_t>(sizes.size());
    int64_t dim = 0;
    for (const int64_t wanted : sizes) right = right && list.size(dim++) == wanted;
    return right;
  };
  check(is(lists[0], ScalarType::Long, {capacity}), op, ": positions of ", name, " must be contiguous int64 [P], got ",
        describe(lists[0]));
  check(is(lists[1], ScalarType::Int, {2}), op, ": count of ", name, " must be int32 [2], got ", describe(lists[1]));
  check(is(lists[2], ScalarType::Int, {words, 2}), op, ": words of ", name, " must be contiguous int32 [", words,
        ", 2], got ", describe(lists[2]));
  check(is(lists[3], ScalarType::Int, {9, capacity}), op, ": neighbours of ", name, " must be contiguous int32 [9, ",
        capacity, "], got ", describe(lists[3]));
  return {lists[0].const_data_ptr<int64_t>(),
          lists[1].const_data_ptr<int32_t>(),
          lists[2].const_data_ptr(),
          lists[3].const_data_ptr<int32_t>(),
          capacity,
          static_cast<int>(size[0]),
          static_cast<int>(size[1]),
          static_cast<int>(size[2])};
}

}  // namespace sbnet::cuda
