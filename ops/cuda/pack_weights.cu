// Weights in the order in which the lanes of a warp read them.
#include "pack_weights.h"

#include "fragments.h"

namespace sbnet::cuda {
namespace {

// A thread for the 8 numbers of a lane: of each tile of 8 columns, of its column four channels of the input.
template <typename T>
__global__ void __launch_bounds__(kThreads, kResident) pack_kernel(const float* weight, int64_t outputs, int64_t inputs,
                                                                   int64_t taps, int64_t vectors, uint4* packed) {
  const int64_t output_blocks = divide_up(outputs, kBlock), input_blocks = divide_up(inputs, kBlock);
  for (int64_t vector = thread_of_grid(); vector < vectors; vector += threads_of_grid()) {
    const auto lane = static_cast<int>(vector % kWarp);
    const int64_t output_block = vector / kWarp % output_blocks, block = vector / kWarp / output_blocks;
    const int64_t input = block % input_blocks * kBlock + lane % 4 * 4, tap = block / input_blocks;
    const int column = lane / 4;
    uint32_t pairs[4];
    for (int i = 0; i < 4; ++i) {
      // column 2 q + j of a tile is output 4 q + 2 tile + j of the block
      const int64_t output = output_block * kBlock + column / 2 * 4 + i / 2 * 2 + column % 2;
      const auto number = [&](int64_t k) {
        return output < outputs && k < inputs ? weight[(output * inputs + k) * taps + tap] : 0.f;
      };
      const int64_t k = input + i % 2 * 2;
      pairs[i] = floats_to_pair<T>(number(k), number(k + 1));
    }
    packed[vector] = {pairs[0], pairs[1], pairs[2], pairs[3]};
  }
}

}  // namespace

void pack_weights(Element element, const float* weight, int64_t outputs, int64_t inputs, int64_t taps, void* packed,
                  Stream stream) {
  const int64_t vectors = taps * divide_up(inputs, kBlock) * divide_up(outputs, kBlock) * kWarp;
  const auto start = [&]<typename T>(T) {
    launch("pack weights", pack_kernel<T>, vectors, kThreads, 0, stream, weight, outputs, inputs, taps, vectors,
           static_cast<uint4*>(packed));
  };
  element == Element::kBFloat16 ? start(BFloat16{}) : start(Half{});
}

}  // namespace sbnet::cuda
