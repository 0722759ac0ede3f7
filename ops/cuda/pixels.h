// Pixels of maps as tensors: the lists that Python's `Pixels` holds on a GPU.
#pragma once

#include "host.h"
#include "scan.h"

namespace sbnet::cuda {

using Lists = std::vector<Tensor>;

// Raises an error that names the pixels if the lists cannot be of maps of `size` (N, H, W).
Pixels pixels_of(const char* op, const char* name, const Lists& lists, const std::vector<int64_t>& size);

// The lists of a map that is to be scanned; `size` is (N, H, W).
class NewPixels {
 public:
  // Words, which are not yet written, and counts. `count` int32 [2].
  NewPixels(const char* op, const Tensor& like, const std::vector<int64_t>& size, Tensor count);

  // Room for so many pixels, and for their neighbours if they are asked for.
  void make_room(int64_t capacity, bool neighbours);

  // As `make_room`, for pixels whose positions are known.
  void make_room_for(const Tensor& flat);

  const Scanned& scanned() const { return scanned_; }
  Lists lists() const { return {flat_, count_, words_, neighbours_}; }

 private:
  Tensor flat_, count_, words_, neighbours_;
  Scanned scanned_{};
};

// How many pixels there are of each of several maps, whose counts are int32 [maps, 2]; waits for the device.
std::vector<int64_t> read_counts(const Tensor& counts, Stream stream);

}  // namespace sbnet::cuda
